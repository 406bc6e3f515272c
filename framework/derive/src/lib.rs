//! `#[derive(State)]`: makes a struct of state handles the row of one key. What it generates is an implementation of
//! `millstream_framework::state::State`; what the handles do with it is in `framework/src/state/`. And
//! `#[derive(Branches)]`, which is in `branches.rs`.
//!
//! Each macro exists twice, because the generated code has to name the crate that the user depends on: [`State`] names
//! `millstream_framework`, [`FacadeState`] names `millstream::framework`. Both crates re-export theirs as `State`.

mod branches;
mod field;

use field::Field;
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, FieldsNamed, Ident, parse_macro_input};

/// Makes a struct the row of one key: every field is a state handle, and its name is the name of the state.
///
/// | attribute of a field | meaning |
/// |---|---|
/// | `#[state(name = "..")]` | the state's name, of a-z, 0-9, `_`, `-` and `.`; without it the field's name |
/// | `#[state(version = 2)]` | the version of what the state keeps, from 1; without it 1 |
///
/// A state is found again by its name: renaming a field without giving it the old name in the attribute makes another
/// state of it. The order of the fields does not matter.
///
/// Which handles there are, and which one is for what, is described in the module `state`.
///
/// ```ignore
/// #[derive(State)]
/// struct Seen {
///     small: ValueState<u64>,
///     shops: MapState<String, u32>,
///     #[state(name = "last")]
///     last_order: ValueState<String>,
/// }
/// ```
#[proc_macro_derive(State, attributes(state))]
pub fn state(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive(&input, &quote!(::millstream_framework)).into()
}

/// The same for those who depend on the facade, which re-exports it as `State`.
#[proc_macro_derive(FacadeState, attributes(state))]
pub fn facade_state(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    derive(&input, &quote!(::millstream::framework)).into()
}

/// Makes an enum one that `split` takes apart, into one stream per variant. Each variant holds one unnamed field; there
/// may be any number of variants.
///
/// ```ignore
/// #[derive(Branches)]
/// enum Event {
///     Click(Click),
///     Purchase(Purchase),
/// }
/// ```
#[proc_macro_derive(Branches)]
pub fn branches(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    branches::derive(&input, &quote!(::millstream_framework)).into()
}

/// The same for those who depend on the facade, which re-exports it as `Branches`.
#[proc_macro_derive(FacadeBranches)]
pub fn facade_branches(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    branches::derive(&input, &quote!(::millstream::framework)).into()
}

/// The implementation, or the compile errors that say why there is none.
fn derive(input: &DeriveInput, root: &TokenStream) -> TokenStream {
    let parsed = rows(input).and_then(|fields| field::parse_all(input, fields));
    match parsed {
        Ok(fields) => implement(input, &fields, root),
        Err(error) => error.to_compile_error(),
    }
}

/// The named fields of the struct; an error for anything else.
fn rows(input: &DeriveInput) -> Result<&FieldsNamed, Error> {
    let say = |text: &str| Err(Error::new_spanned(&input.ident, text));
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) if !fields.named.is_empty() => Ok(fields),
            Fields::Unnamed(_) => say("give the fields names: the name of a field is the name of its state"),
            Fields::Named(_) | Fields::Unit => {
                say("nothing is kept here: write `type State = ()` for a process without state")
            }
        },
        Data::Enum(_) => say("state is a struct whose fields are state handles; \
             to keep an enum, put it into one: `struct Row { current: ValueState<MyEnum> }`"),
        Data::Union(_) => say("state is a struct whose fields are state handles"),
    }
}

/// The implementation, and beside it the proof that each field is a state handle. The proof bears the spans of the
/// fields' types, so that what is wrong is said once per field, and there. So that the implementation does not say it
/// again, it takes the proof for granted; the lifetime keeps rustc from looking into that at once.
fn implement(input: &DeriveInput, fields: &[Field<'_>], root: &TokenStream) -> TokenStream {
    let name = &input.ident;
    let (generics, types, bounds) = input.generics.split_for_impl();
    let given = input.generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let granted = fields.iter().map(|Field { ty, .. }| quote!(for<'proven> #ty: #root::state::Handle));
    let proofs = fields.iter().map(|Field { ty, .. }| quote_spanned!(ty.span()=> #root::state::Field::of::<#ty>));
    let specs =
        fields.iter().map(|Field { ty, label, version, .. }| quote!(#root::state::Field::of::<#ty>(#label, #version)));
    let opens = fields.iter().map(|Field { ident, ty, .. }| quote!(#ident: <#ty as #root::state::Handle>::open()));
    let lends = ["enter", "leave"].map(|call| {
        let call = Ident::new(call, Span::call_site());
        let each = fields
            .iter()
            .map(|Field { ident, .. }| quote!(#root::state::Handle::#call(&mut self.#ident, &mut desk.#ident, here);));
        quote! {
            #[inline(always)]
            fn #call(&mut self, desk: &mut Self, here: &#root::state::Here) {
                #(#each)*
            }
        }
    });
    let visits = fields
        .iter()
        .enumerate()
        .map(|(index, Field { ident, .. })| quote!(#root::state::Visitor::field(visitor, #index, &self.#ident);));
    let visits_mut = fields.iter().enumerate().map(
        |(index, Field { ident, .. })| quote!(#root::state::VisitorMut::field(visitor, #index, &mut self.#ident);),
    );
    quote! {
        const _: () = {
            #[allow(dead_code)]
            fn prove #generics () #bounds {
                #(let _ = #proofs;)*
            }
        };
        #[automatically_derived]
        impl #generics #root::state::State for #name #types
        where
            #(#given,)*
            #(#granted,)*
        {
            const FIELDS: &'static [#root::state::Field] = &[#(#specs),*];
            fn open() -> Self {
                Self { #(#opens),* }
            }
            #[inline(always)]
            fn visit(&self, visitor: &mut impl #root::state::Visitor) {
                #(#visits)*
            }
            #[inline(always)]
            fn visit_mut(&mut self, visitor: &mut impl #root::state::VisitorMut) {
                #(#visits_mut)*
            }
            #(#lends)*
        }
    }
}

#[cfg(test)]
mod tests;
