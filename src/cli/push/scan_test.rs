#![allow(clippy::unwrap_used)]

use std::fs::FileTimes;
use std::time::Duration;

use super::*;

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path
}

fn names(scan: &Scan, root: &Path) -> Vec<String> {
    scan.found.iter().map(|(path, _)| path.strip_prefix(root).unwrap().display().to_string()).collect()
}

fn only(scan: Scan) -> Result<LocalFile, Error> {
    assert_eq!(scan.found.len(), 1);
    scan.found.into_iter().next().unwrap().1
}

#[test]
fn folders_are_walked_in_order_and_each_file_is_taken_once() {
    let root = tempfile::tempdir().unwrap();
    for name in ["b/2.txt", "b/1.txt", "b/a/deep.txt", "a.txt", "b/.hidden", "b/.git/config"] {
        write(root.path(), name, b"x");
    }
    let arguments = [root.path().join("b/2.txt"), root.path().join("b"), root.path().join("b/../a.txt")];
    let walked = scan(&arguments, false);
    assert_eq!(names(&walked, root.path()), ["b/2.txt", "b/1.txt", "b/a/deep.txt", "b/../a.txt"]);
    assert_eq!(walked.hidden, 2);
    assert_eq!(names(&scan(&arguments, true), root.path()).len(), 6);
    let named = scan(&[root.path().join("b/.hidden")], false);
    assert!(only(named).is_ok(), "a hidden file that is named is sent");
}

#[cfg(unix)]
#[test]
fn a_link_is_followed_where_it_is_named_and_left_out_inside_a_folder() {
    let root = tempfile::tempdir().unwrap();
    let real = write(root.path(), "real.txt", b"x");
    let link = root.path().join("in/link.txt");
    fs::create_dir(root.path().join("in")).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let inside = scan(&[root.path().join("in")], false);
    assert_eq!((inside.found.len(), inside.special), (0, 1));
    assert_eq!(only(scan(&[link], false)).unwrap().name, "link.txt");
}

#[test]
fn what_the_server_would_refuse_fails_alone_and_says_why() {
    let root = tempfile::tempdir().unwrap();
    let why = |path: PathBuf| only(scan(&[path], false)).unwrap_err().to_string();
    assert!(why(root.path().join("absent")).starts_with("cannot read the file"));
    assert_eq!(name_problem(&"ü".repeat(255)), None);
    assert!(name_problem(&"ü".repeat(256)).is_some());
    assert!(name_problem("a\nb").is_some() && name_problem("a\\b").is_some() && name_problem("a\u{85}b").is_some());
}

#[test]
fn an_empty_file_is_a_file() {
    let root = tempfile::tempdir().unwrap();
    let empty = only(scan(&[write(root.path(), "empty", b"")], false)).unwrap();
    // SHA-256 of nothing.
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!((empty.size, empty.identify().unwrap().sha256.as_deref()), (0, Some(sha256)));
}

#[test]
fn a_small_file_is_known_by_path_and_content_not_by_its_time() {
    let root = tempfile::tempdir().unwrap();
    let path = write(root.path(), "a.txt", b"hello");
    let first = only(scan(std::slice::from_ref(&path), false)).unwrap().identify().unwrap();
    assert_eq!(first.fingerprint.len(), 64);
    let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_eq!(first.sha256.as_deref(), Some(sha256));
    touch(&path);
    assert_eq!(only(scan(std::slice::from_ref(&path), false)).unwrap().identify().unwrap(), first);

    fs::write(&path, b"jello").unwrap();
    assert_ne!(only(scan(&[path], false)).unwrap().identify().unwrap().fingerprint, first.fingerprint);
    let twin = write(root.path(), "b/a.txt", b"hello");
    assert_ne!(only(scan(&[twin], false)).unwrap().identify().unwrap().fingerprint, first.fingerprint);
}

#[test]
fn a_large_file_is_known_by_its_ends_and_its_time() {
    let root = tempfile::tempdir().unwrap();
    let mut bytes = vec![7; HASHED_MAX_BYTES as usize + 1];
    let path = write(root.path(), "big", &bytes);
    let found = only(scan(std::slice::from_ref(&path), false)).unwrap();
    let first = found.identify().unwrap();
    assert_eq!(first.sha256, None);
    assert_eq!(only(scan(std::slice::from_ref(&path), false)).unwrap().identify().unwrap(), first);

    *bytes.last_mut().unwrap() = 8;
    fs::write(&path, &bytes).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_times(FileTimes::new().set_modified(found.modified)).unwrap();
    assert_ne!(found.identify().unwrap(), first, "the last byte counts");
    touch(&path);
    assert!(matches!(found.identify(), Err(Error::Changed)));
    assert_ne!(only(scan(&[path], false)).unwrap().identify().unwrap(), first, "the time counts");
}

fn touch(path: &Path) {
    let file = File::options().write(true).open(path).unwrap();
    let later = file.metadata().unwrap().modified().unwrap() + Duration::from_secs(10);
    file.set_times(FileTimes::new().set_modified(later)).unwrap();
}
