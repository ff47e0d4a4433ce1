//! A wasm filter that does nothing: what entering wasm costs by itself. It exports the callbacks that ours has.

use walrus::{FunctionBuilder, FunctionId, GlobalId, LocalId, Module, ModuleConfig, ValType, ir};

/// What the module does when a request comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    Nothing,
    /// It fails as soon as a request has a context, so that an answer of 503 proves that requests have one.
    Fails,
}

/// Returned by `proxy_on_request_headers` and its like: go on.
const CONTINUE: i32 = 0;
/// Returned by `proxy_on_configure` and its like: yes.
const YES: i32 = 1;

/// Callbacks, how many numbers they take, and what they return.
const CALLBACKS: [(&str, usize, Option<i32>); 13] = [
    ("proxy_abi_version_0_2_1", 0, None),
    ("_initialize", 0, None),
    ("proxy_on_vm_start", 2, Some(YES)),
    ("proxy_on_configure", 2, Some(YES)),
    ("proxy_on_tick", 1, None),
    ("proxy_on_new_connection", 1, Some(CONTINUE)),
    ("proxy_on_request_headers", 3, Some(CONTINUE)),
    ("proxy_on_request_body", 3, Some(CONTINUE)),
    ("proxy_on_response_headers", 3, Some(CONTINUE)),
    ("proxy_on_response_body", 3, Some(CONTINUE)),
    ("proxy_on_done", 1, Some(YES)),
    ("proxy_on_log", 1, None),
    ("proxy_on_delete", 1, None),
];

/// The module's bytes.
pub fn module(filter: Filter) -> Vec<u8> {
    let mut module = Module::with_config(ModuleConfig::new());
    let memory = module.memories.add_local(false, false, 2, None, None);
    module.exports.add("memory", memory);
    for (name, parameters, result) in CALLBACKS {
        let function = callback(&mut module, parameters, result);
        module.exports.add(name, function);
    }
    let allocate = allocator(&mut module);
    module.exports.add("proxy_on_memory_allocate", allocate);
    let create = on_context_create(&mut module, filter);
    module.exports.add("proxy_on_context_create", create);
    module.emit_wasm()
}

fn callback(module: &mut Module, parameters: usize, result: Option<i32>) -> FunctionId {
    let results: Vec<ValType> = result.map(|_| ValType::I32).into_iter().collect();
    let mut builder = FunctionBuilder::new(&mut module.types, &vec![ValType::I32; parameters], &results);
    let locals = locals(module, parameters);
    if let Some(value) = result {
        builder.func_body().i32_const(value);
    }
    builder.finish(locals, &mut module.funcs)
}

/// Envoy asks for memory for what it hands over, such as the configuration. There is little of it, so nothing is freed.
fn allocator(module: &mut Module) -> FunctionId {
    let next: GlobalId =
        module.globals.add_local(ValType::I32, true, false, walrus::ConstExpr::Value(ir::Value::I32(1024)));
    let mut builder = FunctionBuilder::new(&mut module.types, &[ValType::I32], &[ValType::I32]);
    let size = module.locals.add(ValType::I32);
    builder.func_body().global_get(next).global_get(next).local_get(size).binop(ir::BinaryOp::I32Add).global_set(next);
    builder.finish(vec![size], &mut module.funcs)
}

/// It is called with a context and its parent. The root's has none.
fn on_context_create(module: &mut Module, filter: Filter) -> FunctionId {
    let mut builder = FunctionBuilder::new(&mut module.types, &[ValType::I32, ValType::I32], &[]);
    let locals = locals(module, 2);
    if filter == Filter::Fails
        && let [_, parent] = locals.as_slice()
    {
        builder.func_body().local_get(*parent).if_else(
            None,
            |is_of_a_request| {
                is_of_a_request.unreachable();
            },
            |_| {},
        );
    }
    builder.finish(locals, &mut module.funcs)
}

fn locals(module: &mut Module, count: usize) -> Vec<LocalId> {
    (0..count).map(|_| module.locals.add(ValType::I32)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_is_valid_and_small_and_has_what_envoy_calls() {
        for filter in [Filter::Nothing, Filter::Fails] {
            let bytes = module(filter);
            assert!(bytes.len() < 1024, "{}", bytes.len());
            // Reading it again validates it.
            let module = Module::from_buffer(&bytes).unwrap();
            for name in ["proxy_on_context_create", "proxy_on_request_headers", "proxy_on_memory_allocate", "memory"] {
                assert!(module.exports.iter().any(|export| export.name == name), "{name}");
            }
        }
        assert_ne!(module(Filter::Nothing), module(Filter::Fails));
    }
}
