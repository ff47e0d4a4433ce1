//! Functions of Envoy's that this module calls, under their names in Envoy's binary.
//!
//! For all of them: bytes that we hand over are read during the call alone; bytes that Envoy hands over are its own,
//! and stay until the hook returns in which they were asked for, or until what they belong to is changed.

use super::{Body, Bytes, Envoys, Header, Headers, LogLevel, Ours};

unsafe extern "C" {
    // Of the process.

    #[link_name = "envoy_dynamic_module_callback_log"]
    pub fn log(level: LogLevel, message: Bytes);
    /// On the main thread.
    #[link_name = "envoy_dynamic_module_callback_get_concurrency"]
    pub fn concurrency() -> u32;
    /// What some module of this process has given under this name.
    #[link_name = "envoy_dynamic_module_callback_get_shared_data"]
    pub fn given(name: Bytes, out: *mut Ours) -> bool;
    #[link_name = "envoy_dynamic_module_callback_register_shared_data"]
    pub fn give(name: Bytes, object: Ours) -> bool;

    // Of one HTTP stream, on its own thread.

    #[link_name = "envoy_dynamic_module_callback_http_filter_get_worker_index"]
    pub fn http_worker(filter: Envoys) -> u32;
    #[link_name = "envoy_dynamic_module_callback_http_get_headers_size"]
    pub fn headers_count(filter: Envoys, which: Headers) -> usize;
    /// Writes as many as `headers_count` says.
    #[link_name = "envoy_dynamic_module_callback_http_get_headers"]
    pub fn headers(filter: Envoys, which: Headers, out: *mut Header) -> bool;
    /// An empty value removes the header.
    #[link_name = "envoy_dynamic_module_callback_http_set_header"]
    pub fn set_header(filter: Envoys, which: Headers, name: Bytes, value: Bytes) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_get_body_size"]
    pub fn body_size(filter: Envoys, which: Body) -> usize;
    #[link_name = "envoy_dynamic_module_callback_http_get_body_chunks_size"]
    pub fn body_chunks_count(filter: Envoys, which: Body) -> usize;
    /// Writes as many as `body_chunks_count` says.
    #[link_name = "envoy_dynamic_module_callback_http_get_body_chunks"]
    pub fn body_chunks(filter: Envoys, which: Body, out: *mut Bytes) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_drain_body"]
    pub fn drain_body(filter: Envoys, which: Body, bytes: usize) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_append_body"]
    pub fn append_body(filter: Envoys, which: Body, bytes: Bytes) -> bool;
    /// Whether what is received is what another filter held, so that both are one body.
    #[link_name = "envoy_dynamic_module_callback_http_received_buffered_request_body"]
    pub fn received_is_held(filter: Envoys) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_filter_get_attribute_string"]
    pub fn attribute_text(filter: Envoys, which: u32, out: *mut Bytes) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_filter_get_attribute_int"]
    pub fn attribute_number(filter: Envoys, which: u32, out: *mut u64) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_get_filter_state_bytes"]
    pub fn state(filter: Envoys, key: Bytes, out: *mut Bytes) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_set_filter_state_bytes"]
    pub fn set_state(filter: Envoys, key: Bytes, value: Bytes) -> bool;
    #[link_name = "envoy_dynamic_module_callback_http_clear_route_cluster_cache"]
    pub fn choose_cluster_again(filter: Envoys);
    #[link_name = "envoy_dynamic_module_callback_http_filter_continue_decoding"]
    pub fn resume(filter: Envoys);
    #[link_name = "envoy_dynamic_module_callback_http_send_response"]
    pub fn reply(filter: Envoys, status: u32, headers: *mut Header, count: usize, body: Bytes, details: Bytes);

    /// From then on events may be sent to the stream from any thread.
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_new"]
    pub fn stream_scheduler(filter: Envoys) -> Envoys;
    /// From any thread. Does nothing once the stream is gone.
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_commit"]
    pub fn schedule_stream(scheduler: Envoys, event: u64);
    #[link_name = "envoy_dynamic_module_callback_http_filter_scheduler_delete"]
    pub fn delete_stream_scheduler(scheduler: Envoys);

    // Of one configuration, on the main thread.

    /// Only while the configuration is made.
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_define_counter"]
    pub fn define_counter(
        config: Envoys,
        name: Bytes,
        label_names: *mut Bytes,
        label_count: usize,
        id: *mut usize,
    ) -> u32;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_increment_counter"]
    pub fn increment_counter(
        config: Envoys,
        id: usize,
        label_values: *mut Bytes,
        label_count: usize,
        count: u64,
    ) -> u32;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_scheduler_new"]
    pub fn config_scheduler(config: Envoys) -> Envoys;
    /// From any thread. Does nothing once the configuration is gone.
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_scheduler_commit"]
    pub fn schedule_config(scheduler: Envoys, event: u64);
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_scheduler_delete"]
    pub fn delete_config_scheduler(scheduler: Envoys);
    /// Opens a request of our own. What fails at once may be told by a hook before this returns.
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_start_http_stream"]
    pub fn start_call(
        config: Envoys,
        id: *mut u64,
        cluster: Bytes,
        headers: *mut Header,
        count: usize,
        body: Bytes,
        end: bool,
        timeout_ms: u64,
    ) -> u32;
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_stream_send_data"]
    pub fn send_on_call(config: Envoys, id: u64, bytes: Bytes, end: bool) -> bool;
    /// The hook for a call that was reset may run before this returns.
    #[link_name = "envoy_dynamic_module_callback_http_filter_config_reset_http_stream"]
    pub fn reset_call(config: Envoys, id: u64);

    // Of one connection, on its own thread.

    #[link_name = "envoy_dynamic_module_callback_network_filter_get_worker_index"]
    pub fn connection_worker(filter: Envoys) -> u32;
    #[link_name = "envoy_dynamic_module_callback_network_filter_get_remote_address"]
    pub fn remote_address(filter: Envoys, address: *mut Bytes, port: *mut u32) -> bool;
    #[link_name = "envoy_dynamic_module_callback_network_filter_close"]
    pub fn close(filter: Envoys, how: u32);
}
