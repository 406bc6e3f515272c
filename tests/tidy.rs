//! House rules that no lint knows: which folder may import which, how long things are, what things are called. The
//! rules are those of `CONTRIBUTING.md` and `ARCHITECTURE.md`.
//!
//! Each rule is a function from sources to mistakes. One test applies it to this repository, another one shows that it
//! finds something. Rust is read by a scanner of a few lines, which knows comments, literals and braces and no more.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const LINE_MAX: usize = 120;
/// So many files may name barriers as they travel: see "the control protocol" in `ARCHITECTURE.md`.
const BARRIER_FILES_MAX: usize = 6;
const BANNED: [&str; 5] = ["actor", "executor", "vnode", "replica", "processor"];
const UNSAFE_IN: [&str; 2] = ["framework/src/state/table.rs", "operators/src/kafka/ffi.rs"];

/// What each part of `framework/src` may import besides itself. `base` are the small files that import each other only.
const IMPORTS: [(&str, &[&str]); 12] = [
    ("base", &["base"]),
    ("state", &["base"]),
    ("operator", &["base", "state"]),
    ("checkpoints", &["base", "operator", "state::snapshot"]),
    ("subtask", &["base", "state", "operator", "checkpoints"]),
    ("topology", &["base", "state", "operator", "subtask"]),
    ("config", &["base", "checkpoints"]),
    ("runtime", &["base", "state", "operator", "checkpoints", "subtask", "topology", "config", "job"]),
    ("cli", &["base", "checkpoints", "topology", "config", "runtime", "job"]),
    ("job", &["base", "topology", "config", "runtime", "cli"]),
    ("sim", &["base", "state", "operator", "checkpoints", "topology", "config", "runtime", "job"]),
    ("testing", &["base", "state", "operator", "subtask", "topology", "runtime", "job"]),
];
const BASE: [&str; 17] = [
    "clock",
    "codec",
    "data",
    "disk",
    "error",
    "failpoint",
    "guard",
    "key",
    "message",
    "mutant",
    "random",
    "record",
    "secret",
    "shape",
    "spawn",
    "time",
    "values",
];

/// Crates of this workspace that the code below a path must not name.
const CRATES: [(&str, &[&str]); 4] = [
    ("framework/src/", &["millstream", "millstream_operators"]),
    ("framework/examples/", &["millstream", "millstream_operators", "millstream_derive"]),
    ("operators/", &["millstream", "millstream_derive"]),
    ("examples/", &["millstream_framework", "millstream_operators", "millstream_derive"]),
];

/// A file of the repository, its path relative to the root.
struct Source {
    path: String,
    text: String,
    /// Of Rust: the text without comments and without what stands in literals. Its lines are those of the text.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), code: code_of(text) }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// Whether all of it is test code.
    fn is_test(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        let of_tests = ["tests/", "benches/"].iter().any(|start| self.path.starts_with(start));
        of_tests
            || self.path.contains("/tests/")
            || ["tests.rs", "testing.rs"].contains(&name)
            || name.ends_with("_test.rs")
    }

    /// The code without modules for tests, line by line, numbered from 1.
    fn lines(&self) -> Vec<(usize, &str)> {
        let (mut lines, mut skipping) = (Vec::new(), None);
        let mut depth = 0;
        for (i, line) in self.code.lines().enumerate() {
            if skipping.is_none() && line.trim() == "#[cfg(test)]" {
                skipping = Some(depth);
            }
            let before = depth;
            depth += line.matches('{').count() as i64 - line.matches('}').count() as i64;
            match skipping {
                None => lines.push((i + 1, line)),
                // the item after the attribute ends where the depth is as before again, or with a semicolon
                Some(outside) if depth == outside && (before > outside || line.contains(['}', ';'])) => skipping = None,
                Some(_) => {}
            }
        }
        lines
    }
}

/// Blanks out comments and the content of literals.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or(' ');
    let (mut out, mut i) = (String::new(), 0);
    // keeps line ends, so that lines keep their numbers
    let blank = |out: &mut String, range: std::ops::Range<usize>| {
        out.extend(range.map(|i| if at(i) == '\n' { '\n' } else { ' ' }));
    };
    while i < chars.len() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let end = match (at(i), at(i + 1)) {
            ('/', '/') => (i..).find(|&j| j >= chars.len() || at(j) == '\n').unwrap_or(i),
            ('/', '*') => (i + 2..).find(|&j| j >= chars.len() || (at(j), at(j + 1)) == ('*', '/')).unwrap_or(i) + 2,
            ('r', '"' | '#') if (i == 0 || !is_word(at(i - 1)) || at(i - 1) == 'b') && raw(&chars, i).is_some() => {
                raw(&chars, i).unwrap_or(i)
            }
            ('"', _) => quoted(&chars, i + 1, '"'),
            // a character, and no lifetime
            ('\'', '\\') => quoted(&chars, i + 1, '\''),
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            _ => {
                out.push(at(i));
                i += 1;
                continue;
            }
        };
        let end = end.min(chars.len());
        blank(&mut out, i..end);
        i = end;
    }
    out
}

/// Behind the literal whose content begins at `i`.
fn quoted(chars: &[char], mut i: usize, quote: char) -> usize {
    while i < chars.len() && chars[i] != quote {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Behind the raw string whose `r` is at `i`, if it is one.
fn raw(chars: &[char], i: usize) -> Option<usize> {
    let hashes = chars[i + 1..].iter().take_while(|c| **c == '#').count();
    let start = i + 1 + hashes;
    (chars.get(start) == Some(&'"')).then_some(())?;
    let closes = |j: &usize| chars[*j] == '"' && chars[j + 1..].iter().take_while(|c| **c == '#').count() >= hashes;
    (start + 1..chars.len()).find(closes).map(|j| j + 1 + hashes)
}

/// The words of a text, with the place of each.
fn words(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_')
        .filter(|word| !word.is_empty())
        .map(move |word| (word.as_ptr() as usize - code.as_ptr() as usize, word))
}

/// All files of the repository, but for what is built, fetched or hidden.
fn repository() -> Vec<Source> {
    fn walk(directory: &Path, root: &Path, all: &mut Vec<Source>) {
        let mut entries: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_hidden = name.starts_with('.') && name != ".ci";
            if is_hidden || name == "target" || name == "Cargo.lock" {
                continue;
            }
            if path.is_dir() {
                walk(&path, root, all);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/");
                let code = if path.ends_with(".rs") { code_of(&text) } else { String::new() };
                all.push(Source { path, text, code });
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    walk(root, root, &mut all);
    all
}

/// Every Rust file opens with what lives there.
fn heads(sources: &[Source]) -> Vec<String> {
    let bare = sources.iter().filter(|s| s.is_rust() && !s.text.starts_with("//! "));
    bare.map(|s| format!("{}: begin with `//!`: what lives here, and what does not", s.path)).collect()
}

/// What shows what is promised for a fault: `docs/faults.md` names all the tests there are, and no other ones.
fn faults(sources: &[Source]) -> Vec<String> {
    let is_one = |name: &str| {
        let number = name.strip_prefix('f').and_then(|rest| rest.split_once('_'));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        number.is_some_and(|(number, rest)| digits(number) && !rest.is_empty())
    };
    let named = |of: &dyn Fn(&&Source) -> bool, text: fn(&Source) -> &str| -> BTreeSet<&str> {
        let sources = sources.iter().filter(of);
        sources.flat_map(|s| words(text(s)).map(|(_, word)| word).filter(|word| is_one(word))).collect()
    };
    let listed = named(&|s| s.path == "docs/faults.md", |s| &s.text);
    let is_test = |path: &str| path.starts_with("tests/") || path.starts_with("framework/src/sim/");
    let there = named(&|s| is_test(&s.path), |s| &s.code);
    let differ = listed.symmetric_difference(&there);
    differ.map(|name| format!("docs/faults.md and tests: only one of them has `{name}`")).collect()
}

fn file_lengths(sources: &[Source]) -> Vec<String> {
    let code = sources.iter().filter(|s| s.is_rust() && !s.is_test());
    let long = code.map(|s| (s, s.lines().len())).filter(|(_, lines)| *lines > FILE_LINES_MAX);
    long.map(|(s, lines)| format!("{}: {lines} lines without tests, at most {FILE_LINES_MAX}: divide it", s.path))
        .collect()
}

/// Rows of tables cannot be broken, and texts are not, so that they can be searched for.
fn line_lengths(sources: &[Source]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust()) {
        for (i, line) in source.text.lines().enumerate() {
            let text = line.find('"').zip(line.rfind('"')).map_or("", |(start, end)| &line[start..end]);
            let length = line.chars().count() - text.chars().count();
            let is_row = ["//! |", "/// |"].iter().any(|row| line.trim_start().starts_with(row));
            if length > LINE_MAX && !is_row {
                mistakes.push(format!("{}:{}: {length} characters, at most {LINE_MAX}", source.path, i + 1));
            }
        }
    }
    mistakes
}

/// Functions, signature and braces included, blank lines and comments not.
fn function_lengths(sources: &[Source]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust()) {
        let code = &source.code;
        for (start, _) in words(code).filter(|(_, word)| *word == "fn") {
            let Some(end) = body_end(&code[start..]) else { continue };
            let function = &code[start..start + end];
            let lines = function.lines().filter(|line| !line.trim().is_empty()).count();
            if lines > FUNCTION_LINES_MAX {
                let name = words(function).nth(1).map_or("", |(_, name)| name);
                let line = code[..start].lines().count();
                mistakes.push(format!(
                    "{}:{line}: `{name}` has {lines} lines, at most {FUNCTION_LINES_MAX}: name a part of it",
                    source.path
                ));
            }
        }
    }
    mistakes
}

/// Where the body of the function that begins here ends; none for a declaration and for the type of a function.
fn body_end(code: &str) -> Option<usize> {
    let is_type = code.trim_start_matches("fn").trim_start().starts_with('(');
    let (mut round, mut depth) = (0, 0);
    for (i, c) in code.char_indices().filter(|_| !is_type) {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            ';' if round == 0 && depth == 0 => return None,
            '{' => depth += 1,
            '}' if depth == 1 => return Some(i + 1),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// One word per thing: the parts of identifiers, whether `written_so` or `WrittenSo`.
fn vocabulary(sources: &[Source]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust()) {
        let mut seen = BTreeSet::new();
        for (_, word) in words(&source.code) {
            let mut parts = String::new();
            for c in word.chars() {
                parts.extend(c.is_uppercase().then_some('_').into_iter().chain(c.to_lowercase()));
            }
            let banned = parts.split('_').find(|part| BANNED.contains(&part.trim_end_matches('s')));
            if let Some(part) = banned.filter(|_| seen.insert(word)) {
                mistakes.push(format!("{}: `{word}`: `{part}` is no word of ours, see GLOSSARY.md", source.path));
            }
        }
    }
    mistakes
}

fn unsafe_code(sources: &[Source]) -> Vec<String> {
    let others = sources.iter().filter(|s| s.is_rust() && !UNSAFE_IN.contains(&s.path.as_str()));
    let found = others.filter(|s| words(&s.code).any(|(_, word)| word == "unsafe"));
    found.map(|s| format!("{}: `unsafe` belongs into {UNSAFE_IN:?} only", s.path)).collect()
}

/// Nothing points to what only one machine has.
fn outside(sources: &[Source]) -> Vec<String> {
    let pointers = [concat!("../", "shared"), concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/")];
    let mut mistakes = Vec::new();
    for source in sources {
        for (i, line) in source.text.lines().enumerate() {
            if let Some(pointer) = pointers.iter().find(|p| line.contains(**p)) {
                mistakes.push(format!("{}:{}: `{pointer}` is not in this repository", source.path, i + 1));
            }
        }
    }
    mistakes
}

/// Few files know how barriers travel: operators and connectors do not.
fn control_protocol(sources: &[Source]) -> Vec<String> {
    let names =
        |s: &&Source| s.is_rust() && !s.is_test() && s.lines().iter().any(|(_, l)| l.contains("Message::Barrier"));
    let files: Vec<_> = sources.iter().filter(names).map(|s| s.path.as_str()).collect();
    let strangers = files.iter().filter(|path| !path.starts_with("framework/src/"));
    let mut mistakes: Vec<_> = strangers.map(|path| format!("{path}: barriers are the framework's")).collect();
    if files.len() > BARRIER_FILES_MAX {
        mistakes.push(format!("barriers are handled in more than {BARRIER_FILES_MAX} files: {files:?}"));
    }
    mistakes
}

/// Examples, tests, benches -> millstream -> operators -> framework.
fn crates(sources: &[Source]) -> Vec<String> {
    let mut mistakes = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust()) {
        let Some((_, banned)) = CRATES.iter().find(|(start, _)| source.path.starts_with(start)) else { continue };
        for (_, line) in source.lines() {
            if let Some((_, name)) = words(line).find(|(_, word)| banned.contains(word)) {
                mistakes.push(format!("{}: names the crate `{name}`, which is not for it to see", source.path));
            }
        }
    }
    mistakes
}

/// Within the framework imports point one way.
fn imports(sources: &[Source]) -> Vec<String> {
    let homes = homes(sources);
    let mut mistakes = Vec::new();
    for source in sources.iter().filter(|s| s.is_rust() && !s.is_test()) {
        let Some(path) = source.path.strip_prefix("framework/src/").filter(|path| *path != "lib.rs") else { continue };
        let module: Vec<&str> = path.trim_end_matches(".rs").trim_end_matches("/mod").split('/').collect();
        let part = part_of(module[0]);
        let Some((_, allowed)) = IMPORTS.iter().find(|(of, _)| *of == part) else {
            mistakes.push(format!("{}: `{part}` is new: say in `IMPORTS` what it may import", source.path));
            continue;
        };
        let code: Vec<&str> = source.lines().into_iter().map(|(_, line)| line).collect();
        for import in paths(&code.join("\n"), &module) {
            let home = homes.get(import[0].as_str()).map_or(import[0].as_str(), String::as_str);
            let target = part_of(home);
            let is_known = IMPORTS.iter().any(|(of, _)| *of == target);
            let deep = format!("{target}::{}", import.get(1).map_or("", String::as_str));
            if is_known && target != part && !allowed.contains(&target) && !allowed.contains(&deep.as_str()) {
                let path = import.join("::");
                mistakes.push(format!("{}: `{part}` must not import `{target}` (`crate::{path}`)", source.path));
            }
        }
    }
    mistakes
}

fn part_of(module: &str) -> &str {
    if BASE.contains(&module) { "base" } else { module }
}

/// In which module each name lives that `lib.rs` re-exports at the root.
fn homes(sources: &[Source]) -> BTreeMap<String, String> {
    let code = |path: &str| sources.iter().find(|s| s.path == format!("framework/src/{path}")).map(|s| s.code.clone());
    let mut homes = BTreeMap::new();
    for statement in code("lib.rs").unwrap_or_default().split(';') {
        let Some((_, tree)) = statement.split_once("pub use ") else { continue };
        for path in expand(tree) {
            let [module, name] = &path[..] else { continue };
            if name == "*" {
                let inner = code(&format!("{module}/mod.rs")).unwrap_or_default();
                let exports = inner.split(';').filter_map(|s| Some(s.split_once("pub use ")?.1.to_owned()));
                let names = exports.flat_map(|tree| expand(&tree)).filter_map(|path| path.last().cloned());
                homes.extend(names.map(|name| (name, module.clone())));
            } else {
                homes.insert(name.clone(), module.clone());
            }
        }
    }
    homes
}

/// All paths that start at the root of the crate, without `crate`, also those that climb there with `super`.
fn paths(code: &str, module: &[&str]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, word) in words(code).filter(|(_, word)| ["crate", "super"].contains(word)) {
        let is_start = !code[..at].ends_with("::");
        let rest = &code[at + word.len()..];
        if !is_start || !rest.starts_with("::") {
            continue;
        }
        let climbed =
            if word == "super" { 1 + rest.split("::").skip(1).take_while(|s| *s == "super").count() } else { 0 };
        let base: Vec<&str> = match climbed {
            0 => Vec::new(),
            n => module[..module.len().saturating_sub(n)].to_vec(),
        };
        for path in expand(&rest[2..]) {
            let path = path.into_iter().filter(|segment| segment != "super");
            found.push(base.iter().map(ToString::to_string).chain(path).collect());
        }
    }
    found.retain(|path: &Vec<String>| !path.is_empty());
    found
}

/// The paths of a use tree, `a::{b, c::d}` being `a::b` and `a::c::d`. Reads as far as the tree goes.
fn expand(tree: &str) -> Vec<Vec<String>> {
    let tree = tree.trim_start();
    if let Some(group) = tree.strip_prefix('{') {
        let (mut depth, mut start, mut all) = (0, 0, Vec::new());
        for (i, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    all.extend(expand(&group[start..i]));
                    start = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
        return all;
    }
    let end = tree.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '*').unwrap_or(tree.len());
    let (first, rest) = tree.split_at(end);
    if first.is_empty() {
        return Vec::new();
    }
    let below = rest.strip_prefix("::").map(expand).unwrap_or_default();
    if below.is_empty() {
        return vec![vec![first.into()]];
    }
    below.into_iter().map(|path| std::iter::once(first.to_owned()).chain(path).collect()).collect()
}

/// Applies a rule to this repository.
fn holds(rule: fn(&[Source]) -> Vec<String>) {
    let mistakes = rule(&repository());
    assert!(mistakes.is_empty(), "{} against the house rules:\n{}", mistakes.len(), mistakes.join("\n"));
}

/// Shows that a rule finds what is wrong with a file, and nothing once it is right.
fn finds(rule: fn(&[Source]) -> Vec<String>, path: &str, wrong: &str, right: &str) {
    assert_ne!(rule(&[Source::new(path, wrong)]), [""; 0], "{path}: {wrong}");
    assert_eq!(rule(&[Source::new(path, right)]), [""; 0], "{path}: {right}");
}

macro_rules! rules { ($($rule:ident $name:ident),*) => { $(
    #[test]
    fn $name() {
        holds($rule);
    }
)* } }
rules!(
    heads every_file_says_what_lives_there,
    faults the_list_of_faults_is_true,
    file_lengths files_are_short,
    line_lengths lines_are_short,
    function_lengths functions_are_short,
    vocabulary words_are_those_of_the_glossary,
    unsafe_code unsafe_stays_where_it_is,
    outside nothing_points_out_of_the_repository,
    control_protocol few_files_know_barriers,
    crates crates_import_one_way,
    imports folders_import_one_way
);

/// All the repository is seen, or the rules would hold for nothing.
#[test]
fn the_scanner_sees_the_repository() {
    let sources = repository();
    for path in ["src/lib.rs", "framework/src/topology/plan.rs", "operators/src/reduce.rs", "tests/tidy.rs", "Makefile"]
    {
        assert!(sources.iter().any(|s| s.path == path), "no {path}");
    }
    let homes = homes(&sources);
    assert_eq!(homes.get("Stream").map(String::as_str), Some("topology"));
    assert_eq!(homes.get("SinkWriter").map(String::as_str), Some("operator"));
    assert_eq!(homes.get("Epoch").map(String::as_str), Some("message"));
}

#[test]
fn the_scanner_knows_comments_and_literals() {
    let text = "a /* b\n */ c // d\n\"e \\\" f\" 'g' '\\'' h<'i>(r#\"j\" k\"#, b\"l\")";
    let code = code_of(text);
    let found: Vec<_> = words(&code).map(|(_, word)| word).collect();
    assert_eq!(found, ["a", "c", "h", "i", "b"]);
    assert_eq!(code.lines().count(), text.lines().count());
}

#[test]
fn test_code_does_not_count() {
    let source = Source::new("src/a.rs", "a\n#[cfg(test)]\nmod tests {\n  b {}\n}\n#[cfg(test)]\nmod c;\nd");
    assert_eq!(source.lines(), [(1, "a"), (8, "d")]);
}

#[test]
fn lengths_are_counted() {
    let file = |lines: usize| "x;\n".repeat(lines);
    finds(file_lengths, "src/a.rs", &file(FILE_LINES_MAX + 1), &file(FILE_LINES_MAX));
    let long = "x".repeat(LINE_MAX + 1);
    finds(line_lengths, "src/a.rs", &long, &"ä".repeat(LINE_MAX));
    finds(line_lengths, "src/a.rs", &format!("// {long}"), &format!("/// | {long} |\n\"{long}\""));
    let function = |lines: usize| format!("fn a<T>(f: fn(T)) -> [T; 2]\nwhere\nT: X {{\n{}}}\nfn b();", file(lines));
    finds(function_lengths, "src/a.rs", &function(FUNCTION_LINES_MAX - 3), &function(FUNCTION_LINES_MAX - 4));
}

#[test]
fn words_are_looked_at_one_by_one() {
    for wrong in ["struct TaskExecutor;", "let replicas = 3;", "fn the_actor() {}"] {
        finds(vocabulary, "src/a.rs", wrong, "let factor = \"an actor\"; // executor");
    }
    finds(unsafe_code, "src/a.rs", "unsafe { f() }", "// unsafe");
    finds(unsafe_code, "framework/src/state/disk.rs", "unsafe fn f() {}", "fn not_unsafe() {}");
    assert!(unsafe_code(&[Source::new(UNSAFE_IN[0], "unsafe { f() }")]).is_empty());
}

#[test]
fn heads_and_pointers_are_looked_at() {
    finds(heads, "src/a.rs", "use b;", "//! What lives here.\nuse b;");
    finds(outside, "README.md", concat!("see ../", "shared/notes.md"), "see ../notes.md");
    finds(outside, "Makefile", concat!("cd /ro", "ot/x"), "cd x");
    finds(faults, "tests/a.rs", "fn f3_power() {}", "fn f_power() {}");
    finds(faults, "docs/faults.md", "`f3_power`", "F3");
}

#[test]
fn barriers_are_counted() {
    let files = |n: usize| -> Vec<Source> {
        (0..n).map(|i| Source::new(&format!("framework/src/a{i}.rs"), "Message::Barrier(e)")).collect()
    };
    assert_eq!(control_protocol(&files(BARRIER_FILES_MAX)), [""; 0]);
    assert_ne!(control_protocol(&files(BARRIER_FILES_MAX + 1)), [""; 0]);
    finds(control_protocol, "operators/src/a.rs", "Message::Barrier(e)", "// Message::Barrier");
}

#[test]
fn imports_are_read_in_all_their_forms() {
    for (path, wrong, right) in [
        ("topology/plan.rs", "use crate::checkpoints::Part;", "use crate::subtask::StageContext;"),
        (
            "checkpoints/store.rs",
            "use crate::{Epoch, topology::{Plan, Graph}};",
            "use crate::{Epoch, operator::{Sink}};",
        ),
        ("checkpoints/store.rs", "use crate::state::table::RowTable;", "use crate::state::snapshot::FileRef;"),
        ("state/fold.rs", "fn f() { crate::runtime::run() }", "fn f() { super::runtime() }"),
        ("state/mod.rs", "use super::subtask;", "use super::codec;"),
        ("state/fold.rs", "use super::super::subtask;", "use super::store::Store;"),
        ("record.rs", "use crate::operator::Sink;", "use crate::time::Timestamp;"),
    ] {
        finds(imports, &format!("framework/src/{path}"), wrong, right);
    }
    assert!(!imports(&[Source::new("framework/src/new/mod.rs", "")]).is_empty(), "an unknown folder");
    let lib = Source::new("framework/src/lib.rs", "pub use topology::{Stream};\npub use operator::*;");
    let operator = Source::new("framework/src/operator/mod.rs", "pub use step::{Chain, Step};");
    let wrong = Source::new("framework/src/record.rs", "use crate::{BoxError, Step};");
    assert_eq!(imports(&[lib, operator, wrong]).len(), 1);
}

#[test]
fn crates_are_told_apart() {
    let right = "use millstream_framework::Sink; // millstream";
    finds(crates, "operators/src/a.rs", "use millstream::Job;", right);
    finds(crates, "examples/a.rs", right, "use millstream::prelude::*;");
    finds(crates, "framework/src/a.rs", "use millstream_operators::Of;", "use crate::Sink;");
}
