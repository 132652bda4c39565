//! What is wrong with the value of one key, said by whoever reads it; where it stands is not known to them.

/// One thing that is wrong below a key, or with all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    /// What follows the key's name, such as `[events].timeout`.
    pub(super) below: String,
    /// The way to it from the key, for whoever looks for its line.
    pub(super) path: Vec<String>,
    /// What is wrong and what to do. It shows no value of a secret.
    pub(super) message: String,
}

/// All that is wrong with the value of one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wrongs(pub(super) Vec<Wrong>);

impl Wrongs {
    pub(super) fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl From<String> for Wrongs {
    fn from(message: String) -> Self {
        Self(vec![Wrong { below: String::new(), path: Vec::new(), message }])
    }
}
