//! Where settings come from, which source wins, and what each value is called there.
//!
//! The layering is done here and not by a crate: such crates turn `true` into 1 and 8080.5 into 8081, and quote a value that
//! does not fit, even if it is a password.

use std::collections::{BTreeMap, HashMap};
use std::env;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::error::{Complaints, Error};

pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");

const PREFIX: &str = "QUAYMASTER_";

/// Well-known names. `QUAYMASTER_SECTION__KEY` takes precedence over them.
const FAMILIAR: &[(&str, &str)] = &[
    ("PORT", "server.port"),
    ("LOG_LEVEL", "log.level"),
    ("CORS_ALLOWED_ORIGINS", "cors.allowed_origins"),
    ("JWT_SECRET", "auth.jwt_secret"),
    ("AUDIT_KEY", "audit.key"),
    ("DATABASE_URL", "database.url"),
    ("STORAGE_PROVIDER", "storage.provider"),
    ("STORAGE_PROVISION_STRATEGY", "storage.provision_strategy"),
    ("MAX_FILE_SIZE", "uploads.default.max_file_bytes"),
    ("QUAYMASTER_DATA_DIR", "embedded.data_dir"),
];

/// `QUAYMASTER_…` names that other commands and the tests read.
const NOT_SETTINGS: &[&str] = &["QUAYMASTER_CONFIG", "QUAYMASTER_SERVER", "QUAYMASTER_TOKEN"];

/// Each store's own names. One family is read, never a mix: a session token of one account and a key of another make invalid
/// signatures.
const AWS: &[(&str, &str)] = &[
    ("AWS_BUCKET", "storage.bucket"),
    ("AWS_REGION", "storage.region"),
    ("AWS_ENDPOINT_URL_S3", "storage.endpoint"),
    ("AWS_ACCESS_KEY_ID", "storage.access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "storage.secret_access_key"),
    ("AWS_SESSION_TOKEN", "storage.session_token"),
];
const R2: &[(&str, &str)] = &[
    ("R2_BUCKET", "storage.bucket"),
    ("R2_ACCESS_KEY_ID", "storage.access_key_id"),
    ("R2_SECRET_ACCESS_KEY", "storage.secret_access_key"),
];
/// R2's endpoint is made from this account id.
const R2_ACCOUNT: &str = "R2_ACCOUNT_ID";
const MINIO: &[(&str, &str)] = &[
    ("MINIO_BUCKET", "storage.bucket"),
    ("MINIO_ENDPOINT", "storage.endpoint"),
    ("MINIO_ACCESS_KEY", "storage.access_key_id"),
    ("MINIO_SECRET_KEY", "storage.secret_access_key"),
];

/// Returns this process's environment. Skips names that are not Unicode.
///
/// # Errors
/// A value that is not Unicode, if its name could be a setting's.
pub(super) fn process_environment() -> Result<Vec<(String, String)>, Error> {
    let mut environment = Vec::new();
    for (name, value) in env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => environment.push((name, value)),
            Err(_) if is_ours(&name) => return Err(format!("the value of {name} is not valid UTF-8").into()),
            Err(_) => {}
        }
    }
    Ok(environment)
}

fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX) || names().contains(&name)
}

/// Returns the names without the prefix that are read.
pub(super) fn names() -> Vec<&'static str> {
    let families = [FAMILIAR, AWS, R2, MINIO].concat();
    families.into_iter().map(|(name, _)| name).chain([R2_ACCOUNT]).collect()
}

/// The merged sources.
pub(super) struct Sources {
    defaults: Table,
    merged: Table,
    /// The source that set each key, for messages about its value.
    origins: BTreeMap<String, String>,
    warnings: Vec<String>,
}

impl Sources {
    pub fn read(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
        complaints: &mut Complaints,
    ) -> Self {
        let defaults: Table = DEFAULTS.parse().expect("config/default.toml is TOML, as a test shows");
        let mut sources =
            Self { defaults: defaults.clone(), merged: Table::new(), origins: BTreeMap::new(), warnings: Vec::new() };
        sources.add_table(defaults, "config/default.toml", complaints);
        if let Some(text) = file {
            match text.parse::<Table>() {
                Ok(table) => sources.add_table(table, "the configuration file", complaints),
                // Not the error's own text: that quotes the line, and the line may hold a secret.
                Err(error) => {
                    let before = error.span().map_or(0, |span| span.start.min(text.len()));
                    let line = text.as_bytes()[..before].iter().filter(|byte| **byte == b'\n').count() + 1;
                    complaints.add(format!("the configuration file is not TOML, in line {line}: {}", error.message()));
                }
            }
        }
        sources.add_environment(environment, complaints);
        sources.inherit_profiles();
        sources
    }

    /// # Errors
    /// Names the first key whose value does not fit, without the value.
    pub fn into_settings<T: DeserializeOwned>(self) -> Result<(T, Vec<String>), Error> {
        match serde_path_to_error::deserialize(Value::Table(self.merged)) {
            Ok(settings) => Ok((settings, self.warnings)),
            Err(error) => {
                let path = error.path().to_string();
                let key = path.split('[').next().unwrap_or(&path);
                let origin = self.origins.get(key).map_or(String::new(), |origin| format!(" (from {origin})"));
                Err(format!("{key}{origin}: {}", expectation(error.inner().message())).into())
            }
        }
    }

    /// An empty string is the same as leaving the key out: it does not override an earlier source.
    fn add_table(&mut self, table: Table, origin: &str, complaints: &mut Complaints) {
        let mut leaves = Vec::new();
        flatten("", table, &mut leaves);
        for (path, value) in leaves {
            match (self.default_of(&path), &value) {
                (Some(Value::Table(_)), Value::Table(_)) => {}
                (Some(Value::Table(_)), _) => complaints.add(format!("{path} is a section, not a value ({origin})")),
                (Some(_), Value::String(text)) if text.is_empty() => {}
                (Some(_), _) => self.set(&path, value, origin),
                (None, _) => {
                    let hint = self.nearest(&path).map_or(String::new(), |near| format!("; did you mean {near}?"));
                    complaints.add(format!("{path}: no such setting ({origin}){hint}"));
                }
            }
        }
    }

    fn add_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
        complaints: &mut Complaints,
    ) {
        let environment: HashMap<String, String> =
            environment.into_iter().filter(|(_, value)| !value.is_empty()).collect();

        for (name, path) in FAMILIAR {
            self.set_from(name, path, &environment);
        }
        // The provider decides which family counts, and it may come from any source.
        let own_provider = environment.get("QUAYMASTER_STORAGE__PROVIDER").map(String::as_str);
        let provider = own_provider.or_else(|| self.merged.get("storage")?.get("provider")?.as_str());
        let (family, others): (_, &[&str]) = match provider {
            Some("r2") if environment.contains_key("R2_BUCKET") => (R2, &[]),
            Some("minio") if environment.contains_key("MINIO_BUCKET") => (MINIO, &[]),
            Some(_) => (AWS, &[]),
            None => (AWS, &["R2_BUCKET", "MINIO_BUCKET"]),
        };
        for (name, path) in family {
            self.set_from(name, path, &environment);
        }
        if let (true, Some(account)) = (family == R2, environment.get(R2_ACCOUNT)) {
            let endpoint = format!("https://{account}.r2.cloudflarestorage.com");
            self.set("storage.endpoint", Value::String(endpoint), R2_ACCOUNT);
        }
        let unread = others.iter().filter(|name| environment.contains_key(**name));
        self.warnings.extend(unread.map(|name| format!("{name} is set but not read, as STORAGE_PROVIDER is not set")));

        let mut names: Vec<_> = environment.keys().filter(|name| name.starts_with(PREFIX)).collect();
        names.sort();
        for name in names {
            let path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            match self.default_of(&path) {
                Some(default) if !default.is_table() => self.set_from(name, &path, &environment),
                _ if FAMILIAR.iter().any(|(familiar, _)| familiar == name) || belongs_elsewhere(name, &environment) => {
                }
                _ => {
                    let near = self.nearest(&path).map(|near| variable(&near));
                    let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                    complaints.add(format!("{name}: no such setting{hint}"));
                }
            }
        }
    }

    /// Converts the text to the type of the default: a list, a number, true or false. If that fails, the type check reports
    /// it later.
    fn set_from(&mut self, name: &str, path: &str, environment: &HashMap<String, String>) {
        let Some(text) = environment.get(name) else { return };
        let text = text.trim();
        let value = match self.default_of(path) {
            Some(Value::Integer(_)) => text.parse().map_or_else(|_| text.into(), Value::Integer),
            Some(Value::Boolean(_)) => text.parse().map_or_else(|_| text.into(), Value::Boolean),
            Some(Value::Array(_)) => {
                let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
                Value::Array(entries.map(Value::from).collect())
            }
            _ => text.into(),
        };
        self.set(path, value, name);
    }

    fn set(&mut self, path: &str, value: Value, origin: &str) {
        let mut table = &mut self.merged;
        let (sections, key) = path.rsplit_once('.').unwrap_or(("", path));
        for section in sections.split('.') {
            let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else { return };
            table = inner;
        }
        table.insert(key.to_owned(), value);
        self.origins.insert(path.to_owned(), origin.to_owned());
    }

    /// Returns the default at this path. A profile of any name has the keys of `uploads.default`.
    fn default_of(&self, path: &str) -> Option<&Value> {
        let mut segments = path.split('.').enumerate();
        let (_, first) = segments.next()?;
        segments.try_fold(self.defaults.get(first)?, |value, (depth, segment)| {
            let any_profile = first == "uploads" && depth == 1 && is_profile_name(segment);
            value.get(if any_profile { "default" } else { segment })
        })
    }

    fn inherit_profiles(&mut self) {
        let Some(Value::Table(profiles)) = self.merged.get_mut("uploads") else {
            return;
        };
        let Some(Value::Table(default)) = profiles.get("default").cloned() else {
            return;
        };
        for profile in profiles.iter_mut().filter_map(|(_, profile)| profile.as_table_mut()) {
            for (key, value) in &default {
                profile.entry(key).or_insert_with(|| value.clone());
            }
        }
    }

    /// Returns the known key that was probably meant: one that differs in a few letters, or has the same name in another
    /// section.
    fn nearest(&self, path: &str) -> Option<String> {
        let mut known = Vec::new();
        flatten("", self.defaults.clone(), &mut known);
        let known = || known.iter().map(|(key, _)| key);
        let close = known().map(|key| (distance(key, path), key)).min().filter(|(distance, _)| *distance <= 3);
        let last = |path: &str| path.rsplit('.').next().unwrap_or_default().to_owned();
        close.map(|(_, key)| key).or_else(|| known().find(|key| last(key) == last(path))).cloned()
    }
}

/// Returns the environment variable of a key.
fn variable(path: &str) -> String {
    format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
}

fn is_profile_name(segment: &str) -> bool {
    !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}

/// Whether a `QUAYMASTER_…` name is another command's, the tests', or one of those that Kubernetes puts into every
/// pod beside a service of that name (`QUAYMASTER_SERVICE_HOST`, `QUAYMASTER_PORT=tcp://…`).
fn belongs_elsewhere(name: &str, environment: &HashMap<String, String>) -> bool {
    let address = |name: &str| environment.get(name).is_some_and(|value| value.contains("://"));
    let link = name.split_once("_PORT").is_some_and(|(before, after)| {
        address(&format!("{before}_PORT")) && (after.is_empty() || after.starts_with('_'))
    });
    NOT_SETTINGS.contains(&name)
        || name.starts_with("QUAYMASTER_TEST_")
        || name.contains("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || link
}

/// Every value with its dotted path; an empty table counts as one, so that a misspelt section does not pass.
fn flatten(prefix: &str, table: Table, leaves: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) if !inner.is_empty() => flatten(&path, inner, leaves),
            value => leaves.push((path, value)),
        }
    }
}

/// Returns what serde expected, in words for the author of a configuration. The rest of serde's message contains the value.
fn expectation(message: &str) -> String {
    let expected = message.rsplit_once("expected ").map_or(message, |(_, expected)| expected).trim();
    let words = match expected {
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number, 0 or more",
        "a sequence" => "a list",
        "path string" | "a string" => "text",
        "invalid digit found in string" => "a whole number, 0 or more",
        "provided string was not `true` or `false`" => "true or false",
        other => other,
    };
    format!("expected {words}")
}

/// Levenshtein distance in characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
