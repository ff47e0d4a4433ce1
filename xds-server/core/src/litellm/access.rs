//! `master_key`: the Consumer that may ask for everything.

use sha2::{Digest as _, Sha256};

use super::Environment;
use super::given::Key;
use super::names::Names;
use super::notes::Notes;
use super::secrets::Secrets;
use super::written::{Consumer, KeyEntry};
use crate::objects::ANONYMOUS;

/// The Consumers so far, and the names that are taken.
#[derive(Debug)]
pub(super) struct Consumers {
    pub(super) list: Vec<Consumer>,
    pub(super) names: Names,
}

const PATH: &str = "general_settings.master_key";
const VARIABLE: &str = "LITELLM_MASTER_KEY";
/// Shorter ones are guessed.
const MIN_LENGTH: usize = 20;

/// LiteLLM takes the key from the environment if the file has none, and lets everybody in if there is none either.
pub(super) fn master(
    key: Option<Key>,
    environment: Environment<'_>,
    secrets: &mut Secrets,
    notes: &mut Notes,
) -> Consumers {
    let key = key.or_else(|| environment(VARIABLE).map(|_| Key::Environment(VARIABLE.to_owned())));
    let key = match key {
        None => {
            let message =
                format!("there is none: without {VARIABLE} too LiteLLM lets everybody in, and Tollgate nobody");
            let hint = "tollgate key new --consumer NAME; or access: Anonymous in the ModelPool, to let everybody in";
            notes.lost(PATH, message, hint);
            return Consumers { list: Vec::new(), names: Names::without(&[ANONYMOUS]) };
        }
        Some(key @ Key::Environment(_)) => KeyEntry::secret(secrets.of(key, "litellm-master", PATH, notes)),
        Some(Key::Literal(key)) => {
            if key.expose().len() < MIN_LENGTH {
                let message = "a short key: whoever sees its hash can guess it";
                notes.told(PATH, message, "tollgate key rotate --consumer litellm-master -f DIR");
            }
            KeyEntry::sha256(hex::encode(Sha256::digest(key.expose())), None)
        }
    };
    let mut names = Names::without(&[ANONYMOUS]);
    let name = names.label("litellm-master", "litellm-master");
    Consumers { list: vec![Consumer::new(name, key)], names }
}
