//! `#[derive(Branches)]`: makes an enum one that `split` takes apart. What it generates are implementations of
//! `Branches` and of `Deal`, the half of it that runs; what they are for is in `framework/src/topology/branch.rs`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Error, Fields, Ident, Index, Type, Variant};

/// The implementations, or the compile errors that say why there are none.
pub(crate) fn derive(input: &DeriveInput, root: &TokenStream) -> TokenStream {
    match parse(input) {
        Ok(variants) => implement(input, &variants, root),
        Err(error) => error.to_compile_error(),
    }
}

/// The variants, each with the type of its only field; all mistakes together.
fn parse(input: &DeriveInput) -> Result<Vec<(&Ident, &Type)>, Error> {
    let Data::Enum(data) = &input.data else {
        return Err(Error::new_spanned(&input.ident, "branches are the variants of an enum: write one"));
    };
    if data.variants.is_empty() {
        return Err(Error::new_spanned(&input.ident, "there is nothing to split into: write a variant per branch"));
    }
    let mut mistakes: Option<Error> = None;
    let mut parsed = Vec::new();
    for variant in &data.variants {
        match (only_field(variant), &mut mistakes) {
            (Ok(ty), _) => parsed.push((&variant.ident, ty)),
            (Err(error), Some(all)) => all.combine(error),
            (Err(error), none) => *none = Some(error),
        }
    }
    mistakes.map_or(Ok(parsed), Err)
}

fn only_field(variant: &Variant) -> Result<&Type, Error> {
    match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(&fields.unnamed[0].ty),
        _ => {
            let name = &variant.ident;
            let text = format!(
                "each variant holds what its branch carries, one value without a name: write `{name}({name})` \
                 and a struct `{name}`"
            );
            Err(Error::new_spanned(variant, text))
        }
    }
}

/// Bounds on the fields' types are spanned there, so that what cannot cross a thread is said of its variant.
fn implement(input: &DeriveInput, variants: &[(&Ident, &Type)], root: &TokenStream) -> TokenStream {
    let name = &input.ident;
    let (generics, types, _) = input.generics.split_for_impl();
    let given = input.generics.where_clause.iter().flat_map(|clause| &clause.predicates);
    let bounds = variants.iter().map(|(_, ty)| quote_spanned!(ty.span()=> #ty: ::core::marker::Send + 'static));
    let wanted = quote!(where #(#given,)* #(#bounds,)* Self: ::core::marker::Send + 'static);
    let labels = variants.iter().map(|(variant, _)| variant.to_string());
    let fields: Vec<_> = variants.iter().map(|(_, ty)| ty).collect();
    let numbers: Vec<usize> = (0..variants.len()).collect();
    let places: Vec<Index> = numbers.iter().map(|number| Index::from(*number)).collect();
    let arms = variants.iter().zip(&places).map(|((variant, _), place)| {
        quote!(Self::#variant(value) => {
            into.#place.values.push(value);
            if timed {
                into.#place.times.push(record.time);
            }
        })
    });
    quote! {
        #[automatically_derived]
        impl #generics #root::operator::Deal for #name #types #wanted {
            const BRANCHES: &'static [&'static str] = &[#(#labels),*];
            type Batches = (#(#root::Batch<#fields>,)*);
            fn batches() -> Self::Batches {
                (#(#root::Batch::<#fields>::new(),)*)
            }
            #[inline(always)]
            fn deal(record: #root::Record<Self>, timed: bool, into: &mut Self::Batches) {
                match record.value {
                    #(#arms)*
                }
            }
            fn each(batches: &mut Self::Batches, show: &mut dyn FnMut(usize, &mut dyn #root::operator::AnyBatch)) {
                #(show(#numbers, &mut batches.#places);)*
            }
        }
        #[automatically_derived]
        impl #generics #root::topology::Branches for #name #types #wanted {
            type Streams = (#(#root::topology::Stream<#fields>,)*);
            fn streams(ports: &mut #root::topology::Ports) -> Self::Streams {
                (#(ports.stream::<#fields>(),)*)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(source: &str) -> DeriveInput {
        syn::parse_str(source).unwrap()
    }

    /// The texts of the compile errors.
    fn mistakes(source: &str) -> Vec<String> {
        let input = parsed(source);
        parse(&input).err().into_iter().flatten().map(|error| error.to_string()).collect()
    }

    #[test]
    fn variants_keep_their_order_and_generics_their_bounds() {
        let input = parsed("enum Event<A: Data> where A: Clone { Click(A), Buy(Vec<u8>) }");
        let text = derive(&input, &quote!(::root)).to_string().replace([' ', '\n'], "");
        for part in [
            "impl<A:Data>::root::operator::DealforEvent<A>whereA:Clone,A:::core::marker::Send+'static,",
            "BRANCHES:&'static[&'staticstr]=&[\"Click\",\"Buy\"];",
            "typeBatches=(::root::Batch<A>,::root::Batch<Vec<u8>>,);",
            "Self::Buy(value)=>{into.1.values.push(value);",
            "show(1usize,&mutbatches.1);",
            "typeStreams=(::root::topology::Stream<A>,::root::topology::Stream<Vec<u8>>,);",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
    }

    #[test]
    fn mistakes_are_said_together() {
        for (source, said) in [
            ("struct Event(Click);", "the variants of an enum"),
            ("union Event { a: u64 }", "the variants of an enum"),
            ("enum Event {}", "a variant per branch"),
            ("enum Event { Click(Click), Quit }", "write `Quit(Quit)`"),
            ("enum Event { Click { at: u64 } }", "write `Click(Click)`"),
            ("enum Event { Click(u64, u64) }", "one value without a name"),
        ] {
            let all = mistakes(source);
            assert!(all.len() == 1 && all[0].contains(said), "{source}: {all:?}");
        }
        assert_eq!(mistakes("enum Event { A, B(u8), C() }").len(), 2);
    }
}
