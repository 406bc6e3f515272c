//! What is generated, and what is said of mistakes, as text. That it compiles is shown by the operators that use it,
//! and where the compiler's own errors point by the goldens of the workspace.

use super::*;

/// What is generated of a struct, without its white space.
fn expand(source: &str) -> String {
    let input: DeriveInput = syn::parse_str(source).unwrap();
    derive(&input, &quote!(::root)).to_string().replace([' ', '\n'], "")
}

/// The texts of the compile errors.
fn mistakes(source: &str) -> Vec<String> {
    let input: DeriveInput = syn::parse_str(source).unwrap();
    let Err(errors) = rows(&input).and_then(|fields| field::parse_all(&input, fields)) else { return Vec::new() };
    errors.into_iter().map(|error| error.to_string()).collect()
}

/// That a field with this attribute is one mistake, and what is said of it.
fn mistake(attribute: &str) -> String {
    let said = mistakes(&format!("struct Row {{ {attribute} a: ValueState<u64>, b: ValueState<u64> }}"));
    assert_eq!(said.len(), 1, "{attribute}: {said:?}");
    said.concat()
}

#[test]
fn fields_keep_their_order_and_take_names_and_versions() {
    let text = expand(
        "struct Row {
            small: ValueState<u64>,
            #[state(name = \"last-1.x\", version = 3)] last: ValueState<A>,
            r#type: B,
        }",
    );
    for part in [
        "impl::root::state::StateforRow",
        "[::root::state::Field::of::<ValueState<u64>>(\"small\",1u32),\
          ::root::state::Field::of::<ValueState<A>>(\"last-1.x\",3u32),\
          ::root::state::Field::of::<B>(\"type\",1u32)]",
        "small:<ValueState<u64>as::root::state::Handle>::open()",
        "Visitor::field(visitor,1usize,&self.last);",
        "VisitorMut::field(visitor,2usize,&mutself.r#type);",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[test]
fn generics_and_their_bounds_are_kept() {
    let text = expand("struct Row<A: Data, const N: usize> where A: Default { a: ValueState<[A; N]> }");
    assert!(text.contains("impl<A:Data,constN:usize>::root::state::StateforRow<A,N>whereA:Default,"), "{text}");
    assert!(text.contains("fnprove<A:Data,constN:usize>()whereA:Default{"), "{text}");
}

#[test]
fn what_is_no_struct_with_named_fields_is_a_mistake() {
    for (source, said) in [
        ("enum Row { A }", "to keep an enum"),
        ("struct Row;", "`type State = ()`"),
        ("struct Row {}", "`type State = ()`"),
        ("struct Row(ValueState<u64>);", "give the fields names"),
        ("union Row { a: u64 }", "state is a struct"),
        ("#[state(name = \"x\")] struct Row { a: ValueState<u64> }", "belongs on a field"),
    ] {
        let all = mistakes(source);
        assert!(all.len() == 1 && all[0].contains(said), "{source}: {all:?}");
    }
}

#[test]
fn attributes_that_are_not_built_or_not_known_are_mistakes() {
    assert!(mistake("#[state(ttl = Duration::from_secs(1))]").contains("`ttl` is not built yet"));
    assert!(mistake("#[state(nmae = \"x\")]").contains("known keys are"));
    assert!(mistake("#[state(version = 0)]").contains("a whole number from 1"));
    assert!(mistake("#[state(version = 4294967296)]").contains("a whole number from 1"));
    assert!(mistake("#[state(version = \"2\")]").contains("expected integer"));
    assert!(mistake("#[state(version = 1, version = 2)]").contains("given twice"));
    assert!(mistake("#[state(name = \"x\")] #[state(name = \"x\")]").contains("given twice"));
    assert!(mistake("#[state]").contains("expected attribute arguments"));
    for name in ["", "X", "a b", "ä", "a/b"] {
        assert!(mistake(&format!("#[state(name = \"{name}\")]")).contains("of a-z, 0-9"), "{name}");
    }
    assert!(mistake("#[state(name = \"b\")]").contains("`a` and `b` both keep the state `b`"));
    assert!(mistakes("struct Row { A: ValueState<u64> }").concat().contains("of a-z, 0-9"));
}

#[test]
fn all_mistakes_are_said_together() {
    let source = "struct Row { #[state(ttl = 1)] a: A, b: B, #[state(version = 0)] c: C }";
    assert_eq!(mistakes(source).len(), 2);
}
