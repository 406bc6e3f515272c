//! `reduce`: folds the records of a key into one of their own type.

use crate::with_state::One;
use millstream_framework::{BoxError, Context, Data, Key, Process};
use std::marker::PhantomData;
use std::sync::Arc;

/// Keeps the result so far per key, and emits it with each record.
pub(crate) struct Reduce<K, T> {
    f: Arc<dyn Fn(&mut T, T) + Send + Sync>,
    key: PhantomData<fn() -> K>,
}

impl<K, T> Reduce<K, T> {
    pub(crate) fn new(f: impl Fn(&mut T, T) + Send + Sync + 'static) -> Self {
        Self { f: Arc::new(f), key: PhantomData }
    }
}

impl<K: Key, T: Data + Clone> Process for Reduce<K, T> {
    type Key = K;
    type In = T;
    type Out = T;
    type State = One<T>;
    #[inline(always)]
    fn on_record(&self, record: T, state: &mut One<T>, cx: &mut Context<'_, K, T>) -> Result<(), BoxError> {
        match state.value.get_mut() {
            Some(so_far) => {
                (self.f)(so_far, record);
                cx.emit(so_far.clone());
            }
            None => {
                state.value.set(record.clone());
                cx.emit(record);
            }
        }
        Ok(())
    }
}
