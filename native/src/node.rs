//! The name of this Envoy, its node id. The ABI has no callback for it. So it is read where Envoy itself reads it: on its
//! command line, or in the bootstrap that is named there.

use std::{fs, sync::LazyLock};

use tollgate_filter::json::{Raw, members};

static ID: LazyLock<String> = LazyLock::new(|| {
    let command = fs::read("/proc/self/cmdline").unwrap_or_default();
    id_of(&command, |path| fs::read(path).ok()).unwrap_or_default()
});

/// Empty: it is not known. The control plane then knows this proxy by its certificate alone.
pub fn id() -> &'static str {
    &ID
}

/// `command` has a zero byte after each word.
fn id_of(command: &[u8], read: impl Fn(&str) -> Option<Vec<u8>>) -> Option<String> {
    let words: Vec<&str> = command.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
    let option = |names: &[&str]| {
        let mut following = words.iter().zip(words.iter().skip(1));
        let separate = following.find(|(word, _)| names.contains(word)).map(|(_, value)| *value);
        let with_sign = || words.iter().find_map(|word| word.split_once('=').filter(|(name, _)| names.contains(name)));
        separate.or_else(|| with_sign().map(|(_, value)| value))
    };
    if let Some(node) = option(&["--service-node"]) {
        return Some(node.to_owned());
    }
    let bootstrap = read(option(&["-c", "--config-path"])?)?;
    let node = member(&bootstrap, "node")?;
    member(node.text, "id")?.as_text()?.decode()
}

fn member<'t>(text: &'t [u8], name: &str) -> Option<Raw<'t>> {
    let mut found = None;
    members(text, |key, value| {
        if key.decode().is_some_and(|key| key == name) {
            found = Some(value);
        }
    })
    .ok()?;
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(command: &[&str]) -> Option<String> {
        let command: Vec<u8> = command.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        id_of(&command, |path| match path {
            "/good.json" => Some(br#"{"admin": {"id": "no"}, "node": {"cluster": "c", "id": "one"}}"#.to_vec()),
            "/none.json" => Some(br#"{"node": {"cluster": "c"}}"#.to_vec()),
            "/bad.yaml" => Some(b"node: {id: one}".to_vec()),
            _ => None,
        })
    }

    #[test]
    fn the_bootstrap_says_it_unless_the_command_line_does() {
        assert_eq!(id(&["envoy", "-c", "/good.json", "--concurrency", "2"]).as_deref(), Some("one"));
        assert_eq!(id(&["envoy", "--config-path", "/good.json"]).as_deref(), Some("one"));
        assert_eq!(id(&["envoy", "--config-path=/good.json"]).as_deref(), Some("one"));
        assert_eq!(id(&["envoy", "-c", "/good.json", "--service-node", "two"]).as_deref(), Some("two"));
        assert_eq!(id(&["envoy", "-c", "/good.json", "--service-node=two"]).as_deref(), Some("two"));
    }

    #[test]
    fn what_is_not_said_is_not_known() {
        for command in [&["envoy"][..], &["envoy", "-c"], &["envoy", "-c", "/missing"], &["envoy", "-c", "/bad.yaml"]] {
            assert_eq!(id(command), None, "{command:?}");
        }
        assert_eq!(id(&["envoy", "-c", "/none.json"]), None);
    }
}
