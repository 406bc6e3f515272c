//! Which files a path means, and the names of their splits. What is in the files is in `lines.rs`.

use millstream_framework::{Error, ErrorKind};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind::NotFound;
use std::path::{Path, PathBuf};

/// The absolute paths of the regular files that `path` means, sorted; empty if there are none.
///
/// # Errors
/// [`ErrorKind::Usage`] for what can never be read (a device, a bad pattern, a name that is not UTF-8), otherwise
/// [`ErrorKind::Io`].
pub(super) fn list(path: &Path) -> Result<Vec<String>, Error> {
    let found = match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => in_directory(path)?,
        Ok(meta) if meta.is_file() => vec![path.to_owned()],
        Ok(_) => return Err(usage(format!("`{}` is neither a file nor a directory: name one", path.display()))),
        Err(error) if error.kind() == NotFound => match path.to_str().filter(|text| text.contains(['*', '?', '['])) {
            Some(pattern) => matching(pattern)?,
            None => Vec::new(),
        },
        Err(error) => return Err(Error::io(error, "look at", path)),
    };
    let mut directories = BTreeMap::new();
    let splits: Result<BTreeSet<String>, Error> = found.iter().map(|file| split(file, &mut directories)).collect();
    Ok(splits?.into_iter().collect())
}

/// The regular files of a directory that are not hidden.
fn in_directory(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |error| Error::io(error, "list", directory);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if !hidden && is_file(&entry.path())? {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// The regular files that a pattern matches.
fn matching(pattern: &str) -> Result<Vec<PathBuf>, Error> {
    let options =
        glob::MatchOptions { require_literal_leading_dot: true, require_literal_separator: true, ..Default::default() };
    let paths = glob::glob_with(pattern, options)
        .map_err(|error| usage(format!("`{pattern}` is no pattern of files: {error}")))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| {
            let at = error.path().to_owned();
            Error::io(error.into(), "list", &at)
        })?;
        if is_file(&path)? {
            files.push(path);
        }
    }
    Ok(files)
}

/// Whether it is a regular file, or a link to one; what is gone by now, or a link into the void, is none.
fn is_file(path: &Path) -> Result<bool, Error> {
    match fs::metadata(path) {
        Ok(meta) => Ok(meta.is_file()),
        Err(error) if error.kind() == NotFound => Ok(false),
        Err(error) => Err(Error::io(error, "look at", path)),
    }
}

/// The name of a file's split: the same however the user spells the directory, so that no file is read twice.
fn split(file: &Path, directories: &mut BTreeMap<PathBuf, PathBuf>) -> Result<String, Error> {
    let parent = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    if !directories.contains_key(parent) {
        let resolved = parent.canonicalize().map_err(|error| Error::io(error, "look at", parent))?;
        directories.insert(parent.to_owned(), resolved);
    }
    let path = directories[parent].join(file.file_name().unwrap_or_default());
    path.into_os_string().into_string().map_err(|path| {
        usage(format!(
            "the name of the file `{}` is not UTF-8: rename it, or read another directory",
            Path::new(&path).display()
        ))
    })
}

fn usage(text: String) -> Error {
    Error::new(ErrorKind::Usage, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A directory of empty files; those of a path that ends with `/` are directories.
    fn directory(paths: &[&str]) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        for path in paths {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        directory
    }

    /// What is listed, below the directory.
    fn names(directory: &TempDir, path: &str) -> Vec<String> {
        let root = directory.path().canonicalize().unwrap();
        let listed = list(&directory.path().join(path)).unwrap();
        listed.iter().map(|file| Path::new(file).strip_prefix(&root).unwrap().display().to_string()).collect()
    }

    #[test]
    fn a_file_a_directory_and_a_pattern() {
        let d = directory(&["b.txt", "a.txt", "c.log", ".hidden", "sub/d.txt", "sub/.e.txt"]);
        assert_eq!(names(&d, "a.txt"), ["a.txt"]);
        assert_eq!(names(&d, ".hidden"), [".hidden"]);
        assert_eq!(names(&d, ""), ["a.txt", "b.txt", "c.log"]);
        assert_eq!(names(&d, "*.txt"), ["a.txt", "b.txt"]);
        assert_eq!(names(&d, "*"), ["a.txt", "b.txt", "c.log"]);
        assert_eq!(names(&d, "[ab].t?t"), ["a.txt", "b.txt"]);
        assert_eq!(names(&d, "**/*.txt"), ["a.txt", "b.txt", "sub/d.txt"]);
    }

    #[test]
    fn nothing_there_is_an_empty_list() {
        let d = directory(&["only/a.txt"]);
        fs::create_dir(d.path().join("empty")).unwrap();
        for path in ["gone", "gone*", "empty", "*.log"] {
            assert_eq!(names(&d, path), [""; 0], "{path}");
        }
    }

    #[test]
    fn a_name_with_a_star_is_a_name_if_it_exists() {
        let d = directory(&["a*", "ab"]);
        assert_eq!(names(&d, "a*"), ["a*"]);
    }

    #[test]
    fn one_file_has_one_name_however_it_is_spelled() {
        let d = directory(&["sub/a.txt"]);
        std::os::unix::fs::symlink(d.path().join("sub"), d.path().join("link")).unwrap();
        assert_eq!(names(&d, "sub/../sub/./a.txt"), ["sub/a.txt"]);
        assert_eq!(names(&d, "link"), ["sub/a.txt"]);
        assert_eq!(names(&d, "*/a.txt"), ["sub/a.txt"]);
    }

    #[test]
    fn links_to_files_count_and_links_into_the_void_do_not() {
        let d = directory(&["in/a.txt"]);
        let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, d.path().join("in").join(name)).unwrap();
        link("a.txt", "b.txt");
        link("gone", "c.txt");
        link("..", "up");
        assert_eq!(names(&d, "in"), ["in/a.txt", "in/b.txt"]);
    }

    #[test]
    fn what_cannot_be_read_is_a_mistake_in_use() {
        assert_eq!(list(Path::new("/dev/null")).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(list(Path::new("/no/such/[")).unwrap_err().kind(), ErrorKind::Usage);
        let d = directory(&[]);
        let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"a\xff");
        fs::write(d.path().join(name), "").unwrap();
        let error = list(d.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("not UTF-8"), "{error}");
    }
}
