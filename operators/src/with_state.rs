//! `map_with_state` and `flat_map_with_state`: a function of the user with one value of state per key.

use millstream_framework::state::{State, ValueState};
use millstream_framework::{BoxError, Context, Data, Key, Process};
use std::marker::PhantomData;
use std::sync::Arc;

/// The row of operators that keep one value per key.
#[derive(State)]
pub(crate) struct One<S: Data> {
    pub(crate) value: ValueState<S>,
}

/// One result per record.
pub(crate) struct MapWithState<K, T, S, U> {
    f: Arc<dyn Fn(&mut S, T) -> U + Send + Sync>,
    key: PhantomData<fn() -> K>,
}

impl<K, T, S, U> MapWithState<K, T, S, U> {
    pub(crate) fn new(f: impl Fn(&mut S, T) -> U + Send + Sync + 'static) -> Self {
        Self { f: Arc::new(f), key: PhantomData }
    }
}

impl<K, T, S, U> Process for MapWithState<K, T, S, U>
where
    K: Key,
    T: Send + 'static,
    S: Data + Default,
    U: Send + 'static,
{
    type Key = K;
    type In = T;
    type Out = U;
    type State = One<S>;
    #[inline(always)]
    fn on_record(&self, record: T, state: &mut One<S>, cx: &mut Context<'_, K, U>) -> Result<(), BoxError> {
        cx.emit((self.f)(state.value.or_default(), record));
        Ok(())
    }
}

/// None, one or several results per record.
pub(crate) struct FlatMapWithState<K, T, S, I> {
    f: Arc<dyn Fn(&mut S, T) -> I + Send + Sync>,
    key: PhantomData<fn() -> K>,
}

impl<K, T, S, I> FlatMapWithState<K, T, S, I> {
    pub(crate) fn new(f: impl Fn(&mut S, T) -> I + Send + Sync + 'static) -> Self {
        Self { f: Arc::new(f), key: PhantomData }
    }
}

impl<K, T, S, I> Process for FlatMapWithState<K, T, S, I>
where
    K: Key,
    T: Send + 'static,
    S: Data + Default,
    I: IntoIterator<Item: Send + 'static> + 'static,
{
    type Key = K;
    type In = T;
    type Out = I::Item;
    type State = One<S>;
    #[inline(always)]
    fn on_record(&self, record: T, state: &mut One<S>, cx: &mut Context<'_, K, I::Item>) -> Result<(), BoxError> {
        for value in (self.f)(state.value.or_default(), record) {
            cx.emit(value);
        }
        Ok(())
    }
}
