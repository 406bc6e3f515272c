//! One field of the struct, and what its `#[state(..)]` attribute says. What is generated from it is in `lib.rs`.

use syn::ext::IdentExt;
use syn::meta::ParseNestedMeta;
use syn::{Attribute, DeriveInput, Error, FieldsNamed, Ident, LitInt, LitStr, Type};

/// A field that keeps a state.
pub(crate) struct Field<'a> {
    pub(crate) ident: &'a Ident,
    pub(crate) ty: &'a Type,
    /// The name of the state.
    pub(crate) label: String,
    /// The schema version of the state.
    pub(crate) version: u32,
}

/// All fields in order; all mistakes together.
pub(crate) fn parse_all<'a>(input: &'a DeriveInput, fields: &'a FieldsNamed) -> Result<Vec<Field<'a>>, Error> {
    let mut mistakes: Option<Error> = None;
    let mut note = |error: Error| match &mut mistakes {
        Some(all) => all.combine(error),
        None => mistakes = Some(error),
    };
    for attr in of_state(&input.attrs) {
        note(Error::new_spanned(
            attr,
            "`#[state(..)]` belongs on a field: `name` and `version` are those of one state",
        ));
    }
    let mut parsed: Vec<Field<'a>> = Vec::new();
    for field in &fields.named {
        match parse(field) {
            Ok(Some(field)) => {
                if let Some(twin) = parsed.iter().find(|f| f.label == field.label) {
                    let text = format!(
                        "`{}` and `{}` both keep the state `{}`: give one of them another name",
                        twin.ident, field.ident, field.label
                    );
                    note(Error::new_spanned(field.ident, text));
                }
                parsed.push(field);
            }
            Ok(None) => {}
            Err(error) => note(error),
        }
    }
    match mistakes {
        Some(error) => Err(error),
        None => Ok(parsed),
    }
}

/// The attributes that are ours.
fn of_state(attrs: &[Attribute]) -> impl Iterator<Item = &Attribute> {
    attrs.iter().filter(|attr| attr.path().is_ident("state"))
}

fn parse(field: &syn::Field) -> Result<Option<Field<'_>>, Error> {
    let Some(ident) = &field.ident else { return Ok(None) };
    let (mut label, mut version) = (None, None);
    for attr in of_state(&field.attrs) {
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("name") {
                once(&mut label, parse_name(&meta)?, &meta)
            } else if meta.path.is_ident("version") {
                once(&mut version, parse_version(&meta)?, &meta)
            } else if meta.path.is_ident("ttl") {
                Err(meta.error("`ttl` is not built yet: leave it out, or clear the state in `on_record`"))
            } else {
                Err(meta.error("known keys are `name = \"..\"` and `version = <number from 1>`"))
            }
        })?;
    }
    let label = match label {
        Some(label) => label,
        None => check_name(ident.unraw().to_string(), ident)?,
    };
    Ok(Some(Field { ident, ty: &field.ty, label, version: version.unwrap_or(1) }))
}

/// Keeps `value`, unless the key was given before.
fn once<T>(slot: &mut Option<T>, value: T, meta: &ParseNestedMeta<'_>) -> Result<(), Error> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(meta.error("given twice: keep one")),
    }
}

fn parse_name(meta: &ParseNestedMeta<'_>) -> Result<String, Error> {
    let text: LitStr = meta.value()?.parse()?;
    check_name(text.value(), &text)
}

fn parse_version(meta: &ParseNestedMeta<'_>) -> Result<u32, Error> {
    let number: LitInt = meta.value()?.parse()?;
    match number.base10_parse() {
        Ok(version) if version > 0 => Ok(version),
        _ => Err(Error::new_spanned(number, "a version is a whole number from 1 to 4294967295")),
    }
}

/// The names of states are those of operators: what stands in manifests and on command lines.
fn check_name(name: String, place: impl quote::ToTokens) -> Result<String, Error> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-' | '.');
    if !name.is_empty() && name.chars().all(known) {
        return Ok(name);
    }
    let text =
        "the name of a state is of a-z, 0-9, `_`, `-` and `.`: write one as in `#[state(name = \"last_order\")]`";
    Err(Error::new_spanned(place, text))
}
