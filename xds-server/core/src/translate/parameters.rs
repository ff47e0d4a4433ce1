//! What the proxies of a Gateway are to be like: the parameters that it names, and those that its class names.

use gateway_api::apis::standard::gatewayclasses::GatewayClassSpec;

use crate::objects::{Gateway, Object, ProxyParameters, Shown, TOLLGATE_GROUP};
use crate::status::{Finding, Reason, Severity};

use super::view::View;

const KIND: &str = "ProxyParameters";

/// The Gateway's own, and what they leave out from its class's.
pub fn parameters(view: View<'_>, gateway: &Object<Gateway>, findings: &mut Vec<Finding>) -> ProxyParameters {
    let own = gateway.spec.infrastructure.as_ref().and_then(|infrastructure| infrastructure.parameters_ref.as_ref());
    let own = own.map(|own| {
        let field = "spec.infrastructure.parametersRef";
        (field, Named { group: &own.group, kind: &own.kind, namespace: gateway.meta.namespace(), name: &own.name })
    });
    let class = view.object::<GatewayClassSpec>("", &gateway.spec.gateway_class_name);
    let of_class = class.and_then(|class| class.spec.parameters_ref.as_ref()).map(|of_class| {
        let namespace = of_class.namespace.as_deref().unwrap_or_default();
        (
            "spec.gatewayClassName",
            Named { group: &of_class.group, kind: &of_class.kind, namespace, name: &of_class.name },
        )
    });
    let mut found = [own, of_class].map(|named| {
        let (field, named) = named?;
        named
            .find(view)
            .map_err(|message| {
                let hint = format!("kind {KIND} of group {TOLLGATE_GROUP}");
                findings.push(gateway.meta.finding(Severity::Error, Reason::InvalidParameters, field, message, hint));
            })
            .ok()
    });
    let of_class = found[1].take().unwrap_or_default();
    found[0].take().map_or(of_class.clone(), |own| own.or(&of_class))
}

struct Named<'a> {
    group: &'a str,
    kind: &'a str,
    namespace: &'a str,
    name: &'a str,
}

// === impl Named ===

impl Named<'_> {
    fn find(&self, view: View<'_>) -> Result<ProxyParameters, String> {
        if (self.group, self.kind) != (TOLLGATE_GROUP, KIND) {
            return Err(format!("parameters cannot be {} of group {}", Shown(self.kind), Shown(self.group)));
        }
        let found = view.object::<ProxyParameters>(self.namespace, self.name);
        let missing = || format!("{KIND} {}/{} does not exist", Shown(self.namespace), Shown(self.name));
        found.map(|object| object.spec.clone()).ok_or_else(missing)
    }
}
