//! The walls of the house: what may be named where in `src/`, by plain text search. A line that breaks one is printed.
//! Comments and unit tests do not count.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

struct Wall {
    /// What it says, for the message.
    says: &'static str,
    /// Any of these in a line is what it is about.
    words: &'static [&'static str],
    /// Files, or folders with a slash at the end, in which they may stand; `*/x.rs` is one of that name in any folder.
    homes: &'static [&'static str],
}

const WALLS: &[Wall] = &[
    Wall {
        says: "HTTP is served from http/",
        words: &["actix_web", "actix_cors", "actix_http", "actix_service", "utoipa_swagger_ui"],
        homes: &["http/"],
    },
    Wall {
        says: "the AWS SDK is spoken in storage/",
        words: &["aws_sdk_", "aws_config", "aws_credential_types", "aws_smithy", "aws_sigv4"],
        homes: &["storage/"],
    },
    Wall {
        says: "SQL is written in the rows of each noun and in session/transition.rs",
        words: &["sea_orm", "sea_query", "sqlx"],
        homes: &["*/rows.rs", "session/rows/", "session/transition.rs", "database.rs", "database/", "error.rs"],
    },
    Wall { says: "an S3 server is built in embedded-s3, not here", words: &["s3s::", "hyper::"], homes: &[] },
    Wall { says: "sockets are set up in http/socket.rs", words: &["socket2"], homes: &["http/socket.rs"] },
    Wall {
        says: "the system is asked for its uptime in clock.rs, and for open files in open_files.rs",
        words: &["rustix"],
        homes: &["clock.rs", "open_files.rs"],
    },
    Wall { says: "users are limited in http/rate_limit.rs", words: &["governor"], homes: &["http/rate_limit.rs"] },
    Wall { says: "schedules are in schedule/", words: &["tokio_cron_scheduler"], homes: &["schedule/"] },
    Wall {
        says: "one statement changes a session's state",
        words: &[
            "col_expr(Column::Status",
            "col_expr(upload_session::Column::Status",
            ".status = Set",
            "status: Set(Status::Uploading",
            "status: Set(Status::Completed",
            "status: Set(Status::Failed",
            "status: Set(Status::Cancelled",
            "SET status",
        ],
        homes: &["session/transition.rs"],
    },
    Wall {
        says: "clock.rs tells the time, but for signatures, which a store compares with its own",
        words: &["Utc::now", "Local::now", "SystemTime::now"],
        homes: &["clock.rs", "storage/"],
    },
    Wall {
        says: "macros that print panic where the stream is closed or full",
        words: &["println!", "print!", "eprintln!", "eprint!", "dbg!"],
        homes: &[],
    },
    Wall {
        says: "commands write in cli/out.rs, and the log to standard error",
        words: &["stdout()", "io::stdout", "stderr()", "io::stderr"],
        homes: &["cli/out.rs", "cli/push/progress.rs", "telemetry.rs"],
    },
    Wall { says: "the environment is read in settings/", words: &["std::env", "env::var"], homes: &["settings/"] },
];

#[test]
fn every_crate_stays_in_its_home() {
    let mut broken = Vec::new();
    for file in sources(Path::new("src")) {
        let text = fs::read_to_string(&file).unwrap();
        let path = file.strip_prefix("src").unwrap().to_str().unwrap();
        for (number, line) in code_of(&text) {
            for wall in WALLS.iter().filter(|wall| !wall.homes.iter().any(|home| is_home(path, home))) {
                if let Some(word) = wall.words.iter().find(|word| holds_word(line, word)) {
                    let says = wall.says;
                    broken.push(format!("src/{path}:{number}: `{word}`, but {says}\n    {}", line.trim()));
                }
            }
        }
    }
    assert!(broken.is_empty(), "{} lines break a wall:\n{}", broken.len(), broken.join("\n"));
}

/// A search that finds nothing anywhere proves nothing: each wall's words must stand in the home they have.
#[test]
fn every_wall_has_something_behind_it() {
    let files = sources(Path::new("src"));
    for wall in WALLS {
        for home in wall.homes {
            let lived_in = files.iter().any(|file| {
                let path = file.strip_prefix("src").unwrap().to_str().unwrap();
                is_home(path, home)
                    && code_of(&fs::read_to_string(file).unwrap())
                        .any(|(_, line)| wall.words.iter().any(|word| holds_word(line, word)))
            });
            assert!(lived_in, "nothing in {home} is what the wall is about: {}", wall.says);
        }
    }
}

/// The modules of `src/`, from the ground up. A module uses those below it, and none of its own floor.
const FLOORS: &[&[&str]] = &[
    &["address", "clock", "data_dir", "keys", "page", "turns"],
    &["timetable", "yielding"],
    &["threads"],
    &["settings"],
    &["input", "open_files", "storage", "telemetry"],
    &["error"],
    &["caller", "database", "together"],
    &["outage"],
    &["engine"],
    &["action", "event"],
    &["deployment", "feed", "jobs"],
    &["pass", "tenant"],
    &["asset"],
    &["session"],
    &["audit", "finding", "schedule"],
    &["token", "views", "work"],
    &["http"],
    &["start"],
    &["cli"],
    &["lib", "main"],
];

/// Imports up, each with its reason.
const UP: &[(&str, &str, &str)] = &[
    ("engine", "tenant", ENGINE_HOLDS),
    ("engine", "feed", ENGINE_HOLDS),
    ("engine", "asset", ENGINE_HOLDS),
    ("engine", "session", ENGINE_HOLDS),
    ("engine", "jobs", ENGINE_HOLDS),
];
const ENGINE_HOLDS: &str =
    "the engine holds what the verbs of one process share, such as the work that waits to be batched";

#[test]
fn no_import_goes_up() {
    let floor = |module: &str| FLOORS.iter().position(|floor| floor.contains(&module));
    let (mut broken, mut used) = (Vec::new(), Vec::new());
    for file in sources(Path::new("src")) {
        let path = file.strip_prefix("src").unwrap().to_str().unwrap();
        let module = path.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(own) = floor(module) else {
            broken.push(format!("src/{path}: `{module}` is on no floor"));
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        let code: Vec<&str> = code_of(&text).map(|(_, line)| line).collect();
        for target in imports(&code.join("\n")).into_iter().filter(|target| target != module) {
            let is_below = floor(&target).is_some_and(|floor| floor < own);
            match UP.iter().find(|(from, to, _)| (*from, *to) == (module, target.as_str())) {
                Some(up) => used.push(up),
                None if is_below => {}
                None => broken.push(format!("src/{path} uses `{target}`, which is not below `{module}`")),
            }
        }
    }
    assert!(broken.is_empty(), "{} imports go up:\n{}", broken.len(), broken.join("\n"));
    assert!(UP.iter().all(|up| used.contains(&up)), "an import up is no longer there: take it off the list");
}

/// The modules that the code names after `crate::`, in a `use` or in a path.
fn imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, root) in code.match_indices("crate::") {
        let is_of_another = code[..at].chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_');
        let rest = &code[at + root.len()..];
        if is_of_another || code[..at].ends_with("pub(in ") {
            continue;
        }
        match rest.strip_prefix('{') {
            None => found.extend(first_name(rest)),
            Some(list) => {
                let mut depth = 0;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' => {}
                        _ if depth == 0 && list[..at].trim_end().chars().next_back().is_none_or(|c| c == ',') => {
                            found.extend(first_name(&list[at..]));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

fn first_name(text: &str) -> Option<String> {
    let name: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Lines with their numbers, without comments, up to the unit tests.
fn code_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// `s3s::` is not in `embedded_s3s::`.
fn holds_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        word.starts_with('.') || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

fn is_home(path: &str, home: &str) -> bool {
    match home.strip_prefix("*/") {
        Some(name) => path.rsplit('/').next() == Some(name),
        None if home.ends_with('/') => path.starts_with(home),
        None => path == home,
    }
}

#[test]
fn imports_are_found() {
    let code = "use crate::engine::Engine;\nuse crate::{asset, error::{Error, jobs},\n    tenant};\npub(in crate::http) fn f(x: crate::page::Page) {}";
    let found: Vec<String> = imports(code).into_iter().collect();
    assert_eq!(found, ["asset", "engine", "error", "page", "tenant"]);
}

#[test]
fn the_search_itself_works() {
    let text =
        "use sea_orm::X;\n// sea_orm here is a comment\nlet x = mysea_orm;\n#[cfg(test)]\nmod t { use sea_orm::Y; }";
    let found: Vec<usize> = code_of(text).filter(|(_, line)| holds_word(line, "sea_orm")).map(|(n, _)| n).collect();
    assert_eq!(found, [1]);
    assert!(is_home("session/rows.rs", "*/rows.rs") && is_home("http/x/y.rs", "http/") && !is_home("http.rs", "http/"));
}
