//! The bounds that users meet: what can be kept, what can be a key, what can be a name.

use serde::{Serialize, de::DeserializeOwned};

/// What may be kept in state or cross an exchange: anything serde can write and read back.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be kept in state or sent between subtasks",
    label = "this type is not `Data`",
    note = "`Data` is every type that is `Serialize + DeserializeOwned + Send + 'static`",
    note = "write `#[derive(serde::Serialize, serde::Deserialize)]` on `{Self}`; it must own what it holds (no references, no `Rc`)"
)]
pub trait Data: Serialize + DeserializeOwned + Send + 'static {}
#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Send + 'static> Data for T {}

/// What a stream may be keyed by. Two keys are one if they are equal; where a key's state lives follows from what serde
/// writes for it, so a change of its `Serialize` moves it away from its state.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a key",
    label = "this type is not a `Key`",
    note = "`Key` is every type that is `Data + Eq + Clone`",
    note = "write `#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]` on `{Self}`; floats cannot be keys: use an integer of a fixed unit, or `to_bits()`"
)]
pub trait Key: Data + Eq + Clone {}
#[diagnostic::do_not_recommend]
impl<T: Data + Eq + Clone> Key for T {}

/// The name of a source, a sink or something stateful: the identity of its state.
#[diagnostic::on_unimplemented(
    message = "the first argument is the name under which the state lives, and `{Self}` is none",
    label = "write a name here, such as `\"per_minute\"`",
    note = "names are `&str` or `String` of a-z, 0-9, `_`, `-` and `.`, unique in the topology, and must not change while a job has state"
)]
pub trait Name {
    /// The name as it stands in manifests.
    fn into_name(self) -> String;
}
impl Name for &str {
    fn into_name(self) -> String {
        self.into()
    }
}
impl Name for String {
    fn into_name(self) -> String {
        self
    }
}
