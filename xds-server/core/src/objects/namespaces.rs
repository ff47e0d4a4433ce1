//! Whose objects count somewhere: of the same namespace, of all, or of those with certain labels.
//!
//! The shape is that of the Gateway API's `allowedRoutes`, so that nobody has to learn it twice.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::check::Check;
use super::redact::Shown;
use crate::terms::names::{is_label_key, is_label_value};

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Namespaces {
    #[default]
    Same,
    All,
    Selector(LabelSelector),
}

/// All of it must hold; without any requirement it selects everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector(pub Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

/// Namespaces, as in allowedRoutes of the Gateway API.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "has(self.selector) == (has(self.from) && self.from == 'Selector')", "message": "a selector is of from: Selector, and needed there"}])))]
pub struct NamespacesWire {
    /// Same: the namespace of the object. All: every namespace. Selector: those with certain labels.
    #[serde(default)]
    from: FromWire,
    /// Selects namespaces by their labels.
    selector: Option<SelectorWire>,
}

#[derive(Deserialize, Default, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
enum FromWire {
    #[default]
    Same,
    All,
    Selector,
}

/// All of it must hold.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct SelectorWire {
    /// Labels that must have these values.
    #[cfg_attr(feature = "schema", schemars(extend("maxProperties" = 64)))]
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    /// Requirements on labels.
    #[cfg_attr(feature = "schema", schemars(length(max = 64)))]
    #[serde(default)]
    match_expressions: Vec<ExpressionWire>,
}

/// One requirement on a label.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [{"rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)", "message": "In and NotIn with values, Exists and DoesNotExist without"}])))]
struct ExpressionWire {
    /// The key of the label.
    #[cfg_attr(
        feature = "schema",
        schemars(
            regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"),
            length(max = 317)
        )
    )]
    key: String,
    /// In, NotIn, Exists or DoesNotExist.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = r"^(In|NotIn|Exists|DoesNotExist)$"), length(max = 16)))]
    operator: String,
    /// The values, for In and NotIn.
    #[cfg_attr(feature = "schema", schemars(length(max = 64)))]
    #[serde(default)]
    values: Vec<String>,
}

/// Every namespace has this label by itself, with its name.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

// === impl NamespacesWire ===

impl NamespacesWire {
    pub fn parse(self, field: &str, check: &mut Check<'_>) -> Namespaces {
        match (self.from, self.selector) {
            (FromWire::Same, None) => Namespaces::Same,
            (FromWire::All, None) => Namespaces::All,
            (FromWire::Selector, Some(selector)) => {
                Namespaces::Selector(selector.parse(&format!("{field}.selector"), check))
            }
            (FromWire::Selector, None) => {
                check.error(field, "from: Selector without a selector", "selector: {matchLabels: {team: research}}");
                Namespaces::Same
            }
            (FromWire::Same | FromWire::All, Some(_)) => {
                check.error(format_args!("{field}.selector"), "a selector is of from: Selector", "set from: Selector");
                Namespaces::Same
            }
        }
    }
}

// === impl SelectorWire ===

impl SelectorWire {
    fn parse(self, field: &str, check: &mut Check<'_>) -> LabelSelector {
        let mut requirements = Vec::new();
        for (key, value) in self.match_labels {
            if !is_label_key(&key) || !is_label_value(&value) {
                check.error(format_args!("{field}.matchLabels"), "not a label", "key: value, as labels have them");
            }
            requirements.push(Requirement { key, operator: Operator::In(vec![value]) });
        }
        for (index, expression) in self.match_expressions.into_iter().enumerate() {
            let field = format!("{field}.matchExpressions[{index}]");
            if !is_label_key(&expression.key) {
                check.error(format_args!("{field}.key"), format_args!("{} is no label", Shown(&expression.key)), "");
            }
            match Operator::parse(&expression.operator, expression.values) {
                Ok(operator) => requirements.push(Requirement { key: expression.key, operator }),
                Err(hint) => check.error(
                    field,
                    format_args!("operator {} and its values do not fit", Shown(&expression.operator)),
                    hint,
                ),
            }
        }
        LabelSelector(requirements)
    }
}

// === impl Operator ===

impl Operator {
    /// # Errors
    /// What would be right.
    pub fn parse(name: &str, values: Vec<String>) -> Result<Self, &'static str> {
        match (name, values.is_empty()) {
            ("In", false) => Ok(Self::In(values)),
            ("NotIn", false) => Ok(Self::NotIn(values)),
            ("Exists", true) => Ok(Self::Exists),
            ("DoesNotExist", true) => Ok(Self::DoesNotExist),
            _ => Err("In and NotIn with values, Exists and DoesNotExist without"),
        }
    }

    fn holds(&self, value: Option<&String>) -> bool {
        match (self, value) {
            (Self::In(values), Some(value)) => values.contains(value),
            (Self::NotIn(values), Some(value)) => !values.contains(value),
            (Self::NotIn(_) | Self::DoesNotExist, None) | (Self::Exists, Some(_)) => true,
            (Self::In(_) | Self::Exists, None) | (Self::DoesNotExist, Some(_)) => false,
        }
    }
}

// === impl LabelSelector ===

impl LabelSelector {
    /// Whether it selects the namespace, which has these labels written down.
    pub fn selects(&self, namespace: &str, labels: Option<&BTreeMap<String, String>>) -> bool {
        let name = namespace.to_owned();
        self.0.iter().all(|requirement| {
            let value = match requirement.key.as_str() {
                NAME_LABEL => Some(&name),
                key => labels.and_then(|labels| labels.get(key)),
            };
            requirement.operator.holds(value)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors() {
        let labels = BTreeMap::from([("team".to_owned(), "research".to_owned())]);
        let selects = |key: &str, operator: Operator| {
            LabelSelector(vec![Requirement { key: key.to_owned(), operator }]).selects("lab", Some(&labels))
        };
        let values = |value: &str| vec![value.to_owned()];
        assert!(selects("team", Operator::In(values("research"))));
        assert!(!selects("team", Operator::In(values("sales"))));
        assert!(!selects("team", Operator::NotIn(values("research"))));
        assert!(selects("none", Operator::NotIn(values("research"))));
        assert!(selects("team", Operator::Exists) && !selects("none", Operator::Exists));
        assert!(selects("none", Operator::DoesNotExist) && !selects("team", Operator::DoesNotExist));
        assert!(selects(NAME_LABEL, Operator::In(values("lab"))));
        assert!(!selects(NAME_LABEL, Operator::In(values("default"))));
        assert!(LabelSelector::default().selects("any", None));
    }
}
