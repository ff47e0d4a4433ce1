//! An Envoy for tests: the callbacks under their real names, over objects that are numbers. What it hands out is leaked, so
//! that it outlives each hook.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Attribute, Body, Bytes, Envoys, Header, Headers, LogLevel, Ours, SUCCESS};

type Fields = Vec<(String, Vec<u8>)>;

/// What a test puts there and looks at.
#[derive(Debug, Default)]
pub struct Envoy {
    pub streams: HashMap<usize, Stream>,
    pub calls: Vec<Call>,
    /// Events that were sent, with their object, in order.
    pub scheduled: Vec<(usize, u64)>,
    pub counters: BTreeMap<String, u64>,
    pub warnings: Vec<String>,
    pub given: HashMap<String, usize>,
    /// No call can be made.
    pub is_cut_off: bool,
}

#[derive(Debug, Default)]
pub struct Stream {
    pub request: Fields,
    pub answer: Fields,
    pub received: Vec<u8>,
    pub held: Vec<u8>,
    pub chunk: Vec<u8>,
    pub attributes: HashMap<u32, String>,
    pub numbers: HashMap<u32, u64>,
    pub state: HashMap<String, Vec<u8>>,
    pub address: Option<(String, u32)>,
    pub replies: Vec<(u32, Fields, Vec<u8>)>,
    pub resumed: usize,
    pub chosen_again: usize,
    pub is_closed: bool,
}

#[derive(Debug)]
pub struct Call {
    pub config: usize,
    pub id: u64,
    pub headers: Fields,
    pub sent: Vec<u8>,
    pub is_reset: bool,
}

static ENVOY: Mutex<Option<Envoy>> = Mutex::new(None);
/// What happens while an event is sent to objects, or a scheduler for it is made.
static MEANWHILE: Mutex<BTreeMap<usize, Box<dyn FnOnce() + Send>>> = Mutex::new(BTreeMap::new());
/// The module has one state per process, so tests that use it come one after the other.
static TURN: Mutex<()> = Mutex::new(());

/// A new Envoy, for as long as this is kept.
pub fn start() -> MutexGuard<'static, ()> {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    with(|envoy| *envoy = Envoy::default());
    turn
}

pub fn with<T>(run: impl FnOnce(&mut Envoy) -> T) -> T {
    run(ENVOY.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_default())
}

pub fn stream<T>(number: usize, run: impl FnOnce(&mut Stream) -> T) -> T {
    with(|envoy| run(envoy.streams.entry(number).or_default()))
}

/// While the next event is sent to this object, or its scheduler is made, this happens on the same thread.
pub fn meanwhile(object: usize, happens: impl FnOnce() + Send + 'static) {
    MEANWHILE.lock().unwrap().insert(object, Box::new(happens));
}

fn committed(scheduler: Envoys, event: u64) {
    with(|envoy| envoy.scheduled.push((scheduler.addr(), event)));
    happens(scheduler.addr());
}

fn happens(object: usize) {
    let happens = MEANWHILE.lock().unwrap().remove(&object);
    happens.into_iter().for_each(|happens| happens());
}

pub fn object(number: usize) -> Envoys {
    std::ptr::without_provenance_mut(number)
}

fn of<T>(filter: Envoys, run: impl FnOnce(&mut Stream) -> T) -> T {
    stream(filter.addr(), run)
}

fn leaked(bytes: &[u8]) -> Bytes {
    Bytes::of(Box::leak(bytes.to_vec().into_boxed_slice()))
}

fn read(bytes: Bytes) -> Vec<u8> {
    // SAFETY: the module hands over bytes that it may hand over.
    unsafe { bytes.copied() }
}

fn text(bytes: Bytes) -> String {
    String::from_utf8(read(bytes)).unwrap()
}

fn fields(first: *mut Header, count: usize) -> Fields {
    // SAFETY: the module says how many there are.
    let headers = if count == 0 { &[] } else { unsafe { std::slice::from_raw_parts(first, count) } };
    headers.iter().map(|header| (text(header.name), read(header.value))).collect()
}

fn write<T>(place: *mut T, value: T) {
    // SAFETY: the module gives a place of its own.
    unsafe { place.write(value) }
}

fn body(stream: &mut Stream, which: Body) -> &mut Vec<u8> {
    match which {
        Body::RequestReceived => &mut stream.received,
        Body::RequestHeld => &mut stream.held,
        Body::AnswerReceived => &mut stream.chunk,
    }
}

fn map(stream: &mut Stream, which: Headers) -> &mut Fields {
    match which {
        Headers::Request => &mut stream.request,
        Headers::Answer => &mut stream.answer,
    }
}

/// The functions, under the names by which `callbacks` declares them.
mod exported {
    use super::*;

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_log(_: LogLevel, message: Bytes) {
        with(|envoy| envoy.warnings.push(text(message)));
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_get_concurrency() -> u32 {
        1
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_get_shared_data(name: Bytes, out: *mut Ours) -> bool {
        let given = with(|envoy| envoy.given.get(&text(name)).copied());
        given.map(|object| write(out, std::ptr::with_exposed_provenance(object))).is_some()
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_register_shared_data(name: Bytes, object: Ours) -> bool {
        with(|envoy| envoy.given.insert(text(name), object.expose_provenance()));
        true
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_get_worker_index(_: Envoys) -> u32 {
        0
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_get_headers_size(filter: Envoys, which: Headers) -> usize {
        of(filter, |stream| map(stream, which).len())
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_get_headers(
        filter: Envoys,
        which: Headers,
        out: *mut Header,
    ) -> bool {
        let fields = of(filter, |stream| map(stream, which).clone());
        for (place, (name, value)) in fields.into_iter().enumerate() {
            let header = Header { name: leaked(name.as_bytes()), value: leaked(&value) };
            // SAFETY: the module has asked how many there are.
            write(unsafe { out.add(place) }, header);
        }
        true
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_set_header(
        filter: Envoys,
        which: Headers,
        name: Bytes,
        value: Bytes,
    ) -> bool {
        let (name, value) = (text(name), read(value));
        of(filter, |stream| {
            let map = map(stream, which);
            map.retain(|(other, _)| *other != name);
            if !value.is_empty() {
                map.push((name, value));
            }
        });
        true
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_get_body_size(filter: Envoys, which: Body) -> usize {
        of(filter, |stream| body(stream, which).len())
    }

    /// Each body is in two chunks if it can be.
    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_get_body_chunks_size(filter: Envoys, which: Body) -> usize {
        of(filter, |stream| body(stream, which).len().min(2))
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_get_body_chunks(
        filter: Envoys,
        which: Body,
        out: *mut Bytes,
    ) -> bool {
        let bytes = of(filter, |stream| body(stream, which).clone());
        let (first, second) = bytes.split_at(bytes.len().min(1));
        for (place, chunk) in [first, second].into_iter().filter(|chunk| !chunk.is_empty()).enumerate() {
            // SAFETY: the module has asked how many there are.
            write(unsafe { out.add(place) }, leaked(chunk));
        }
        true
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_drain_body(filter: Envoys, which: Body, bytes: usize) -> bool {
        of(filter, |stream| {
            let body = body(stream, which);
            body.drain(..bytes.min(body.len()));
        });
        true
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_append_body(filter: Envoys, which: Body, bytes: Bytes) -> bool {
        of(filter, |stream| body(stream, which).extend(read(bytes)));
        true
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_received_buffered_request_body(_: Envoys) -> bool {
        false
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_get_attribute_string(
        filter: Envoys,
        which: u32,
        out: *mut Bytes,
    ) -> bool {
        let value = of(filter, |stream| stream.attributes.get(&which).cloned());
        value.map(|value| write(out, leaked(value.as_bytes()))).is_some()
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_get_attribute_int(
        filter: Envoys,
        which: u32,
        out: *mut u64,
    ) -> bool {
        let value = of(filter, |stream| stream.numbers.get(&which).copied());
        value.map(|value| write(out, value)).is_some()
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_get_filter_state_bytes(
        filter: Envoys,
        key: Bytes,
        out: *mut Bytes,
    ) -> bool {
        let value = of(filter, |stream| stream.state.get(&text(key)).cloned());
        value.map(|value| write(out, leaked(&value))).is_some()
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_set_filter_state_bytes(
        filter: Envoys,
        key: Bytes,
        value: Bytes,
    ) -> bool {
        of(filter, |stream| stream.state.insert(text(key), read(value)));
        true
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_clear_route_cluster_cache(filter: Envoys) {
        of(filter, |stream| stream.chosen_again += 1);
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_continue_decoding(filter: Envoys) {
        of(filter, |stream| stream.resumed += 1);
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_send_response(
        filter: Envoys,
        status: u32,
        headers: *mut Header,
        count: usize,
        body: Bytes,
        _: Bytes,
    ) {
        let (headers, body) = (fields(headers, count), read(body));
        of(filter, |stream| stream.replies.push((status, headers, body)));
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_scheduler_new(filter: Envoys) -> Envoys {
        filter
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_scheduler_commit(scheduler: Envoys, event: u64) {
        committed(scheduler, event);
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_scheduler_delete(_: Envoys) {}

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_config_define_counter(
        _: Envoys,
        name: Bytes,
        _: *mut Bytes,
        _: usize,
        id: *mut usize,
    ) -> u32 {
        let name = text(name);
        write(id, tollgate_filter::counters::metric_names().position(|known| known == name).unwrap());
        SUCCESS
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_config_increment_counter(
        _: Envoys,
        id: usize,
        _: *mut Bytes,
        _: usize,
        count: u64,
    ) -> u32 {
        let name = tollgate_filter::counters::metric_names().nth(id).unwrap();
        with(|envoy| *envoy.counters.entry(name).or_default() += count);
        SUCCESS
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_new(config: Envoys) -> Envoys {
        happens(config.addr());
        config
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_commit(scheduler: Envoys, event: u64) {
        committed(scheduler, event);
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_config_scheduler_delete(_: Envoys) {}

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_config_start_http_stream(
        config: Envoys,
        id: *mut u64,
        _: Bytes,
        headers: *mut Header,
        count: usize,
        body: Bytes,
        _: bool,
        _: u64,
    ) -> u32 {
        let (headers, sent, config) = (fields(headers, count), read(body), config.addr());
        with(|envoy| {
            if envoy.is_cut_off {
                return SUCCESS + 1;
            }
            let number = envoy.calls.iter().filter(|call| call.config == config).count() as u64 + 1;
            envoy.calls.push(Call { config, id: number, headers, sent, is_reset: false });
            write(id, number);
            SUCCESS
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_config_stream_send_data(
        config: Envoys,
        id: u64,
        bytes: Bytes,
        _: bool,
    ) -> bool {
        let bytes = read(bytes);
        with(|envoy| {
            let call = envoy.calls.iter_mut().find(|call| (call.config, call.id) == (config.addr(), id));
            call.map(|call| call.sent.extend(bytes)).is_some()
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_http_filter_config_reset_http_stream(config: Envoys, id: u64) {
        with(|envoy| {
            let call = envoy.calls.iter_mut().find(|call| (call.config, call.id) == (config.addr(), id));
            call.into_iter().for_each(|call| call.is_reset = true);
        });
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_network_filter_get_worker_index(_: Envoys) -> u32 {
        0
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_network_filter_get_remote_address(
        filter: Envoys,
        address: *mut Bytes,
        port: *mut u32,
    ) -> bool {
        let Some((ip, number)) = of(filter, |stream| stream.address.clone()) else { return false };
        write(address, leaked(ip.as_bytes()));
        write(port, number);
        true
    }

    #[unsafe(no_mangle)]
    extern "C" fn envoy_dynamic_module_callback_network_filter_close(filter: Envoys, _: u32) {
        of(filter, |stream| stream.is_closed = true);
    }
}

// === impl Stream ===

impl Stream {
    pub fn has(&mut self, attribute: Attribute, value: &str) {
        self.attributes.insert(attribute as u32, value.to_owned());
    }
}
