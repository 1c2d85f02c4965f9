#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, Visitor};
use toml::{Table, Value};

use super::sources::DEFAULTS;
use super::*;

fn from_environment(pairs: &[(&str, &str)]) -> Result<Settings, Error> {
    Settings::parse(None, pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

fn from_file(text: &str) -> Result<Settings, Error> {
    Settings::parse(Some(text), [])
}

#[track_caller]
fn refused(result: Result<Settings, Error>, words: &[&str]) {
    let complaint = result.expect_err("the settings should have been refused").to_string();
    for word in words {
        assert!(complaint.contains(word), "{word:?} is not in {complaint:?}");
    }
}

#[test]
fn nothing_set_is_the_embedded_deployment() {
    let settings = from_environment(&[]).unwrap();
    assert_eq!((settings.server.host.as_str(), settings.server.port), ("127.0.0.1", 8080));
    assert!(
        settings.database.url.is_none() && settings.storage.bucket.is_none() && settings.storage.provider.is_none()
    );
    assert!(settings.auth.jwt_secret.is_none() && settings.storage.max_parts.is_none());
    assert_eq!(settings.rate_limit.requests_per_second, 0);
    assert_eq!((settings.default_profile().min_file_bytes, settings.default_profile().max_file_bytes), (0, 5 << 40));
    assert!(settings.server.keep_alive_secs > 60, "shorter than most balancers keep their connections");
    assert_eq!(settings.cors.allowed_headers, ["*"]);
    assert!(settings.warnings.is_empty());
}

#[test]
fn the_file_goes_over_the_defaults_and_the_environment_over_the_file() {
    let environment = [("PORT".to_owned(), "9100".to_owned()), ("LOG_LEVEL".to_owned(), "debug".to_owned())];
    let file = "[server]\nport = 9200\nhost = \"::1\"\n[log]\nlevel = \"warn\"\n";
    let settings = Settings::parse(Some(file), environment.clone()).unwrap();
    assert_eq!((settings.server.port, settings.server.host.as_str()), (9100, "::1"));
    assert_eq!(settings.log.level, "debug");

    let exact = [("QUAYMASTER_SERVER__PORT".to_owned(), "9300".to_owned())];
    let settings = Settings::parse(Some(file), environment.into_iter().chain(exact)).unwrap();
    assert_eq!(settings.server.port, 9300, "the exact name wins over the familiar one");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    refused(Settings::load(Some(Path::new("/nonexistent/quay.toml"))), &["/nonexistent/quay.toml"]);
}

#[test]
fn empty_is_not_set() {
    let settings = from_environment(&[("PORT", ""), ("DATABASE_URL", ""), ("QUAYMASTER_LOG__LEVEL", "")]).unwrap();
    assert_eq!(
        (settings.server.port, settings.log.level.as_str()),
        (8080, "info,actix_http=off,actix_server=warn,tokio_cron_scheduler=warn")
    );
    assert!(settings.database.url.is_none());
    assert_eq!(from_file("[server]\nhost = \"\"").unwrap().server.host, "127.0.0.1");
}

#[test]
fn every_familiar_name_reaches_its_key() {
    let settings = from_environment(&[
        ("DATABASE_URL", "postgres://u:p@db/q"),
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ("AUDIT_KEY", "fedcba9876543210fedcba9876543210"),
        ("CORS_ALLOWED_ORIGINS", "http://localhost:3000, https://app.example.com"),
        ("AWS_BUCKET", "b"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:3900"),
        ("AWS_ACCESS_KEY_ID", "0123"),
        ("AWS_SECRET_ACCESS_KEY", "1e5"),
        ("AWS_SESSION_TOKEN", "true"),
        ("STORAGE_PROVIDER", "s3"),
        ("STORAGE_PROVISION_STRATEGY", "dedicated"),
        ("MAX_FILE_SIZE", "5242880"),
        ("QUAYMASTER_DATA_DIR", "/var/lib/quaymaster"),
    ])
    .unwrap();
    assert_eq!(settings.database.url.unwrap().expose(), "postgres://u:p@db/q");
    assert_eq!(settings.auth.jwt_secret.unwrap().expose(), "0123456789abcdef0123456789abcdef");
    assert_eq!(settings.audit.key.unwrap().expose(), "fedcba9876543210fedcba9876543210");
    assert_eq!(settings.cors.allowed_origins, ["http://localhost:3000", "https://app.example.com"]);
    let storage = settings.storage;
    assert_eq!(storage.bucket.as_deref(), Some("b"));
    assert_eq!(storage.region.as_deref(), Some("eu-central-1"));
    assert_eq!(storage.endpoint.as_deref(), Some("http://127.0.0.1:3900"));
    assert_eq!(storage.access_key_id.as_deref(), Some("0123"), "a key that looks like a number stays as it is");
    assert_eq!(storage.secret_access_key.unwrap().expose(), "1e5");
    assert_eq!(storage.session_token.unwrap().expose(), "true");
    assert_eq!(storage.provider, Some(Provider::Aws));
    assert_eq!(storage.provision_strategy, ProvisionStrategy::Dedicated);
    assert_eq!(settings.uploads["default"].max_file_bytes, 5_242_880);
    assert_eq!(settings.embedded.data_dir, Path::new("/var/lib/quaymaster"));
}

#[test]
fn every_key_can_be_set_from_the_environment() {
    let settings = from_environment(&[
        ("QUAYMASTER_STORAGE__PATH_STYLE", "true"),
        ("QUAYMASTER_STORAGE__MAX_PARTS", "1000"),
        ("QUAYMASTER_STORAGE__MIN_PART_BYTES", "5242880"),
        ("QUAYMASTER_SERVER__TRUSTED_PROXIES", "10.0.0.0/8,::1,"),
        ("QUAYMASTER_UPLOADS__VIDEO__CHUNK_BYTES", "67108864"),
        ("QUAYMASTER_EMBEDDED__ACCESS_KEY_ID", "0123456789012345"),
        ("QUAYMASTER_EMBEDDED__SECRET_ACCESS_KEY", "45678901234567890123456789012345"),
    ])
    .unwrap();
    assert_eq!(settings.storage.path_style, Some(true));
    assert_eq!((settings.storage.max_parts, settings.storage.min_part_bytes), (Some(1000), Some(5 << 20)));
    assert_eq!(settings.server.trusted_networks().unwrap().len(), 2);
    assert_eq!(settings.embedded.access_key_id.as_deref(), Some("0123456789012345"));
    let video = &settings.uploads["video"];
    assert_eq!((video.chunk_bytes, video.url_ttl_secs), (64 << 20, 900), "a profile inherits what it leaves out");
}

#[test]
fn the_embedded_stores_keys_are_as_long_as_those_in_files() {
    let set = |id: usize, secret: usize| {
        from_environment(&[
            ("QUAYMASTER_EMBEDDED__ACCESS_KEY_ID", &"i".repeat(id)),
            ("QUAYMASTER_EMBEDDED__SECRET_ACCESS_KEY", &"s".repeat(secret)),
        ])
    };
    set(16, 32).unwrap();
    refused(set(15, 32), &["embedded.access_key_id", "fewer than 16 characters"]);
    refused(set(16, 31), &["embedded.secret_access_key", "fewer than 32 characters"]);
    refused(set(1, 1), &["embedded.access_key_id", "embedded.secret_access_key"]);
}

#[test]
fn one_family_of_store_names_is_read() {
    let shell = [
        ("AWS_BUCKET", "aws"),
        ("AWS_SESSION_TOKEN", "of-another-account"),
        ("R2_ACCOUNT_ID", "acc"),
        ("R2_BUCKET", "r2"),
        ("R2_ACCESS_KEY_ID", "id"),
        ("R2_SECRET_ACCESS_KEY", "key"),
        ("MINIO_ENDPOINT", "http://localhost:9900"),
        ("MINIO_BUCKET", "minio"),
        ("MINIO_ACCESS_KEY", "id"),
        ("MINIO_SECRET_KEY", "key"),
    ];
    let with = |provider: &'static str| {
        let mut pairs = shell.to_vec();
        pairs.push(("STORAGE_PROVIDER", provider));
        pairs
    };
    let r2 = from_environment(&with("r2")).unwrap().storage;
    assert_eq!(r2.bucket.as_deref(), Some("r2"));
    assert_eq!(r2.endpoint.as_deref(), Some("https://acc.r2.cloudflarestorage.com"));
    assert!(r2.session_token.is_none());
    let minio = from_environment(&with("minio")).unwrap().storage;
    assert_eq!((minio.bucket.as_deref(), minio.endpoint.as_deref()), (Some("minio"), Some("http://localhost:9900")));
    assert!(minio.session_token.is_none());

    let unset = from_environment(&shell[2..]).unwrap();
    assert!(unset.storage.bucket.is_none(), "without a provider these names move no data");
    assert_eq!(unset.warnings.len(), 2);

    let fallback = from_environment(&[("STORAGE_PROVIDER", "r2"), ("AWS_BUCKET", "b")]).unwrap().storage;
    assert_eq!(fallback.bucket.as_deref(), Some("b"));
}

#[test]
fn an_unknown_key_is_named_with_the_one_meant() {
    refused(from_file("[server]\nprot = 1"), &["server.prot", "did you mean server.port?"]);
    refused(from_file("[sevrer]"), &["sevrer: no such setting"]);
    refused(from_file("[uploads.video]\nchunk = 1"), &["uploads.video.chunk"]);
    refused(from_file("server = 5"), &["server is a section"]);
    refused(
        from_environment(&[("QUAYMASTER_SERVER__PROT", "1"), ("QUAYMASTER_PORT", "1")]),
        &["QUAYMASTER_SERVER__PROT: no such", "did you mean QUAYMASTER_SERVER__PORT?", "QUAYMASTER_PORT: no such"],
    );
    refused(from_environment(&[("QUAYMASTER_SERVER__", "1")]), &["QUAYMASTER_SERVER__"]);
}

#[test]
fn names_of_others_are_not_unknown_keys() {
    from_environment(&[
        ("QUAYMASTER_SERVER", "http://localhost:8080"),
        ("QUAYMASTER_TOKEN", "t"),
        ("QUAYMASTER_CONFIG", "c"),
        ("QUAYMASTER_TEST_DATABASE_URL", "x"),
        // What Kubernetes gives every pod beside a service named quaymaster.
        ("QUAYMASTER_SERVICE_HOST", "10.0.0.1"),
        ("QUAYMASTER_SERVICE_PORT", "8080"),
        ("QUAYMASTER_SERVICE_PORT_HTTP", "8080"),
        ("QUAYMASTER_PORT", "tcp://10.0.0.1:8080"),
        ("QUAYMASTER_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ("QUAYMASTER_PORT_8080_TCP_PORT", "8080"),
        ("QUAYMASTER_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
    ])
    .unwrap();
}

#[test]
fn a_wrong_type_names_the_key_and_what_was_expected_but_not_the_value() {
    refused(from_environment(&[("PORT", "http")]), &["server.port", "from PORT", "a whole number from 0 to 65535"]);
    refused(from_file("[server]\nport = true"), &["server.port", "the configuration file", "a whole number"]);
    refused(from_file("[server]\nport = 8080.5"), &["server.port"]);
    refused(from_file("[server]\nport = 70000"), &["server.port"]);
    refused(from_file("[log]\nformat = \"xml\""), &["log.format", "auto"]);
    refused(from_environment(&[("STORAGE_PROVIDER", "floppy")]), &["storage.provider", "minio"]);
    refused(from_environment(&[("QUAYMASTER_STORAGE__MAX_PARTS", "many")]), &["storage.max_parts", "a whole number"]);
    refused(from_environment(&[("QUAYMASTER_STORAGE__PATH_STYLE", "maybe")]), &["storage.path_style", "true or false"]);

    for text in
        ["[auth]\njwt_secret = 31415926", "[auth]\njwt_secret = \"31415926", "[auth]\njwt_secret = [\"31415926\"]"]
    {
        let complaint = from_file(text).unwrap_err().to_string();
        assert!(!complaint.contains("31415926"), "{complaint}");
    }
    refused(from_file("[server]\nhost = \"a\"\nport = = 1\n"), &["line 3"]);
}

#[test]
fn contradictions_are_refused_with_both_names() {
    let sessions = "[sessions]\nexpires_after_secs = 800";
    refused(from_file(sessions), &["uploads.default.url_ttl_secs (900)", "sessions.expires_after_secs (800)"]);
    refused(from_file("[uploads.default]\nurl_ttl_secs = 604801"), &["uploads.default.url_ttl_secs"]);
    refused(from_file("[uploads.default]\nurl_ttl_secs = 0"), &["uploads.default.url_ttl_secs"]);
    refused(from_file("[uploads.default]\nchunk_bytes = 5242879"), &["uploads.default.chunk_bytes", "5 MiB"]);
    refused(from_file("[uploads.big]\nchunk_bytes = 5368709121"), &["uploads.big.chunk_bytes", "5 GiB"]);
    refused(
        from_file("[uploads.default]\nchunk_bytes = 9000000\n[storage]\nmin_part_bytes = 10000000"),
        &["uploads.default.chunk_bytes", "storage.min_part_bytes"],
    );
    refused(from_file("[uploads.default]\ndirect_max_bytes = 5368709121"), &["direct_max_bytes", "5 GiB"]);
    refused(
        from_file("[sessions]\nmax_lifetime_secs = 604799"),
        &["sessions.expires_after_secs", "sessions.max_lifetime_secs"],
    );
    refused(
        from_environment(&[("DATABASE_URL", "postgres://db/q")]),
        &["database.url", "auth.jwt_secret", "audit.key"],
    );
    refused(from_environment(&[("DATABASE_URL", "mysql://u:pw@db/q")]), &["database.url", "postgres://"]);
    refused(from_environment(&[("JWT_SECRET", "0123456789abcdef0123456789abcde")]), &["JWT_SECRET", "32"]);
    refused(from_environment(&[("STORAGE_PROVIDER", "minio")]), &["storage.provider", "storage.bucket"]);
    refused(
        from_environment(&[("AWS_BUCKET", "b"), ("AWS_ACCESS_KEY_ID", "k")]),
        &["storage.access_key_id", "storage.secret_access_key"],
    );
    refused(
        from_file("[embedded]\nsecret_access_key = \"k\""),
        &["embedded.secret_access_key", "embedded.access_key_id"],
    );
    refused(from_environment(&[("PORT", "9000")]), &["server.port", "embedded.port"]);
    refused(from_file("[server]\ntrusted_proxies = [\"proxy\"]"), &["server.trusted_proxies", "proxy"]);
    refused(from_file("[cors]\nallowed_origins = [\"https://a.example/\"]"), &["cors.allowed_origins"]);
    refused(from_environment(&[("LOG_LEVEL", "verbose")]), &["log.level", "verbose"]);
    refused(from_file("[auth]\njwks_url = \"id.example.com\""), &["auth.jwks_url"]);
    refused(
        from_environment(&[("QUAYMASTER_AUTH__CLAIMS__TENANT_ID", "sub")]),
        &["auth.claims.sub", ".tenant_id", "the same claim"],
    );
    let long = format!("[auth.claims]\nsub = \"{}\"", "x".repeat(257));
    refused(from_file(&long), &["auth.claims.sub", "1 to 256 bytes"]);
    refused(from_file("[auth.claims]\nbrand_ids = \"a\\nb\""), &["auth.claims.brand_ids", "no control characters"]);
    refused(from_file("[cors]\nallowed_headers = [\"X Custom\"]"), &["cors.allowed_headers", "X Custom"]);
    refused(
        from_file("[uploads.default]\nmin_file_bytes = 11\nmax_file_bytes = 10"),
        &["uploads.default.min_file_bytes (11)", "uploads.default.max_file_bytes (10)"],
    );
    for key in ["write_timeout_secs", "keep_alive_secs"] {
        for secs in ["0", "86401"] {
            let complaint = format!("server.{key} ({secs})");
            refused(from_file(&format!("[server]\n{key} = {secs}")), &[&complaint, "1 to 86400"]);
        }
    }
    for bytes in [1_023, 131_073] {
        let complaint = format!("server.head_max_bytes ({bytes})");
        refused(from_file(&format!("[server]\nhead_max_bytes = {bytes}")), &[&complaint, "1024 to 131072"]);
    }
    refused(from_file("[server]\nanswers_max_bytes = 1000"), &["server.answers_max_bytes (1000)", "1 MiB"]);
    let share = "[server]\nanswers_max_bytes = 2097152\nanswers_per_tenant_max_bytes = 2097153";
    refused(from_file(share), &["server.answers_per_tenant_max_bytes (2097153)", "server.answers_max_bytes (2097152)"]);
    for key in ["readers_per_user_max", "waits_max"] {
        refused(from_file(&format!("[feed]\n{key} = 0")), &[&format!("feed.{key}")]);
    }
    let for_ever = "[sessions]\nmax_lifetime_secs = 10000000000000";
    refused(from_file(for_ever), &["sessions.max_lifetime_secs (10000000000000)", "a hundred years"]);
    for poll in ["9", "3600001"] {
        refused(from_file(&format!("[feed]\npoll_millis = {poll}")), &[&format!("feed.poll_millis ({poll})"), "10 to"]);
    }
    from_file("[feed]\npoll_millis = 3600000").unwrap();
    refused(from_file("[rate_limit]\nburst = 0"), &["rate_limit.burst is 0"]);
    refused(
        from_file("[rate_limit]\nrequests_per_second = 1000001\nburst = 1000002"),
        &["rate_limit.requests_per_second (1000001)", "rate_limit.burst (1000002)"],
    );
    refused(
        from_file("[rate_limit]\nrequests_per_second = 0.5"),
        &["rate_limit.requests_per_second", "a whole number"],
    );

    let several = from_environment(&[("JWT_SECRET", "short"), ("LOG_LEVEL", "loud"), ("STORAGE_PROVIDER", "r2")]);
    assert_eq!(several.unwrap_err().to_string().lines().count(), 3, "all of them at once");
}

/// A pass with such a threshold would end uploads that are still in use.
#[test]
fn thresholds_that_reach_what_is_alive_are_refused() {
    for key in
        ["abandoned_after_secs", "initiating_after_secs", "orphan_after_secs", "retention_secs", "pass_budget_secs"]
    {
        let lifecycle = |value: &str| from_file(&format!("[lifecycle]\n{key} = {value}"));
        refused(lifecycle("0"), &[&format!("lifecycle.{key}")]);
        refused(lifecycle("-1"), &[&format!("lifecycle.{key}"), "a whole number"]);
        refused(lifecycle("3162240001"), &[&format!("lifecycle.{key}"), "a hundred years"]);
    }
    for key in ["abandoned_after_secs", "orphan_after_secs"] {
        let text = format!("[lifecycle]\n{key} = 900");
        refused(from_file(&text), &[&format!("lifecycle.{key} (900)"), "uploads.default.url_ttl_secs (900)"]);
        from_file(&format!("[lifecycle]\n{key} = 901")).unwrap();
    }
    let opening =
        ["lifecycle.initiating_after_secs (180)", "storage.attempt_timeout_secs", "storage.max_attempts (180)"];
    refused(from_file("[lifecycle]\ninitiating_after_secs = 180"), &opening);
    from_file("[lifecycle]\ninitiating_after_secs = 181").unwrap();
    for key in ["batch_rows", "concurrency"] {
        refused(from_file(&format!("[lifecycle]\n{key} = 0")), &[&format!("lifecycle.{key}")]);
    }
}

#[test]
fn keys_without_a_bucket_leave_the_embedded_store_alone() {
    let settings = from_environment(&[("AWS_ACCESS_KEY_ID", "k"), ("AWS_REGION", "eu-west-1")]).unwrap();
    assert!(settings.storage.bucket.is_none());
    assert_eq!(settings.storage.region.as_deref(), Some("eu-west-1"));
}

#[test]
fn no_secret_shows_in_debug_output() {
    let settings = from_environment(&[
        ("JWT_SECRET", "0123456789abcdef0123456789abcdef"),
        ("AUDIT_KEY", "0123456789abcdef0123456789abcdef"),
        ("DATABASE_URL", "postgres://u:hunter2@db/q"),
        ("AWS_BUCKET", "b"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
        ("AWS_SESSION_TOKEN", "hunter2"),
    ]);
    let text = format!("{:?}", settings.unwrap());
    assert!(text.contains("[secret]") && !text.contains("hunter2") && !text.contains("0123456789"), "{text}");
}

#[test]
fn the_examples_load() {
    let mut environment = Vec::new();
    for line in include_str!("../../.env.example").lines() {
        // Assignments that are commented out are examples too; prose has no name in capitals before its first `=`.
        let line = line.trim_start_matches("# ");
        if let Some((name, value)) = line.split_once('=')
            && name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        {
            environment.push((name.to_owned(), value.to_owned()));
        }
    }
    assert!(environment.len() >= 20, "{environment:?}");
    environment.push(("JWT_SECRET".into(), "0123456789abcdef0123456789abcdef".into()));
    environment.push(("AUDIT_KEY".into(), "0123456789abcdef0123456789abcdef".into()));
    // Every name in the example is one that is read, or the check of names would have nothing to say about it.
    let read = sources::names();
    for (name, _) in &environment {
        assert!(name.starts_with("QUAYMASTER_") || read.contains(&name.as_str()), "{name} is not read by anything");
    }
    let settings = Settings::parse(None, environment).unwrap();
    assert_eq!(settings.storage.provider, Some(Provider::Minio));

    let production = include_str!("../../config/production.example.toml");
    let database = ("DATABASE_URL".to_owned(), "postgres://db/q".to_owned());
    let key = ("AUDIT_KEY".to_owned(), "0123456789abcdef0123456789abcdef".to_owned());
    let settings = Settings::parse(Some(production), [database, key]).unwrap();
    assert_eq!(settings.storage.bucket.as_deref(), Some("example-uploads"));
    assert!(settings.warnings.is_empty());
}

/// A deserializer that returns no values. It only records the names of the fields that it is asked for.
struct FieldNames<'a>(&'a mut Vec<&'static str>);

#[derive(Debug)]
struct Noted;

impl fmt::Display for Noted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("noted")
    }
}

impl std::error::Error for Noted {}

impl de::Error for Noted {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = Noted;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Noted> {
        Err(Noted)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Noted> {
        self.0.extend(fields);
        Err(Noted)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields_of<T: for<'de> Deserialize<'de>>() -> BTreeSet<String> {
    let mut names = Vec::new();
    assert!(T::deserialize(FieldNames(&mut names)).is_err());
    names.into_iter().map(str::to_owned).collect()
}

#[test]
fn the_default_file_and_the_structs_hold_the_same_keys() {
    let defaults: Table = DEFAULTS.parse().unwrap();
    let keys = |value: &Value| value.as_table().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(defaults.keys().cloned().collect::<BTreeSet<_>>(), fields_of::<Settings>());
    assert_eq!(keys(&defaults["server"]), fields_of::<Server>());
    assert_eq!(keys(&defaults["log"]), fields_of::<Log>());
    assert_eq!(keys(&defaults["cors"]), fields_of::<Cors>());
    assert_eq!(keys(&defaults["auth"]), fields_of::<Auth>());
    assert_eq!(keys(&defaults["rate_limit"]), fields_of::<RateLimit>());
    assert_eq!(keys(&defaults["database"]), fields_of::<Database>());
    assert_eq!(keys(&defaults["storage"]), fields_of::<Storage>());
    assert_eq!(keys(&defaults["embedded"]), fields_of::<Embedded>());
    assert_eq!(keys(&defaults["sessions"]), fields_of::<Sessions>());
    assert_eq!(keys(&defaults["uploads"]["default"]), fields_of::<UploadProfile>());
}

#[test]
fn urls_that_work_on_this_machine_only_are_warned_of() {
    const HOST: &str = "QUAYMASTER_EMBEDDED__HOST";
    let warned = |environment: &[(&str, &str)]| {
        let warnings = from_environment(environment).unwrap().warnings;
        warnings.iter().any(|warning| warning.contains("embedded.public_url"))
    };
    for host in ["0.0.0.0", "::"] {
        assert!(warned(&[(HOST, host)]), "{host}");
        assert!(!warned(&[(HOST, host), ("QUAYMASTER_EMBEDDED__PUBLIC_URL", "https://files.example.com")]), "{host}");
        assert!(!warned(&[(HOST, host), ("AWS_BUCKET", "b")]), "{host}");
        assert!(warned(&[("QUAYMASTER_SERVER__HOST", host)]), "the server {host}, its store 127.0.0.1");
        assert!(!warned(&[("QUAYMASTER_SERVER__HOST", host), (HOST, "192.0.2.7")]), "{host}");
    }
    assert!(!warned(&[(HOST, "192.0.2.7")]) && !warned(&[(HOST, "::1")]));
}

#[test]
fn places_of_the_embedded_store_are_shared() {
    let places = |max: &str, share: &str| {
        let names = ["QUAYMASTER_EMBEDDED__MAX_CONNECTIONS", "QUAYMASTER_EMBEDDED__MAX_CONNECTIONS_PER_ADDRESS"];
        from_environment(&[(names[0], max), (names[1], share)])
    };
    let embedded = places("64", "64").unwrap().embedded;
    assert_eq!((embedded.max_connections, embedded.max_connections_per_address), (64, 64));
    let both = ["embedded.max_connections_per_address (65)", "embedded.max_connections (64)"];
    refused(places("64", "65"), &both);
    refused(places("64", "0"), &["embedded.max_connections_per_address"]);
    refused(places("1000001", "1"), &["embedded.max_connections (1000001)"]);
}

#[test]
fn a_timetable_is_read_at_the_start() {
    let keys = ["DETECT_ABANDONED", "CLEANUP", "ORPHANS", "RECONCILE"].map(|key| format!("QUAYMASTER_SCHEDULE__{key}"));
    let all = |cron: &str| from_environment(&keys.each_ref().map(|key| (key.as_str(), cron)));
    for good in ["never", "*/5 * * * *", "30 */5 * * * *", "0 3 * * MON-FRI"] {
        assert!(all(good).is_ok(), "{good}");
    }
    let names = ["schedule.detect_abandoned", "schedule.cleanup", "schedule.orphans", "schedule.reconcile"];
    for bad in ["nightly", "0 0 31 4 *", "0 24 * * *"] {
        refused(all(bad), &names);
    }
}
