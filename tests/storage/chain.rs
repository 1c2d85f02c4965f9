//! The AWS default chain, as in a container on ECS or EKS: the environment names an address that hands out credentials.

use std::process::Command;
use std::time::Duration;

use chrono::{SecondsFormat, TimeDelta, Utc};
use quaymaster::settings::{self, Provider};
use quaymaster::storage::{Location, Storage};

use crate::faults::{Does, Faulty};
use crate::kit;

const CHILD: &str = "chain::signs_by_what_its_environment_says";

/// The environment is a process's own, so a process of its own does the signing: this program again, with one test.
#[tokio::test]
async fn without_keys_in_the_settings_the_container_s_credential_signs() {
    let credentials = Faulty::start(|_, _| {
        let end = (Utc::now() + TimeDelta::minutes(5)).to_rfc3339_opts(SecondsFormat::Secs, true);
        Does::Say(
            200,
            format!(
                "{{\"AccessKeyId\":\"ASIAEXAMPLE\",\"SecretAccessKey\":\"s\",\"Token\":\"t/1\",\"Expiration\":\"{end}\"}}"
            ),
        )
    })
    .await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child
        .args([CHILD, "--exact", "--ignored"])
        .env_clear()
        .env("AWS_REGION", "eu-north-1")
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{}/credentials", credentials.address));
    let child = tokio::task::spawn_blocking(move || child.output()).await.unwrap().unwrap();
    let output = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && output.contains("1 passed"), "{output}");
    assert_eq!(credentials.requests(), ["GET /credentials HTTP/1.1"], "asked once, for three signers");
}

#[tokio::test]
#[ignore = "needs the environment that the test above gives it"]
async fn signs_by_what_its_environment_says() {
    let settings = settings::Storage {
        endpoint: None,
        access_key_id: None,
        secret_access_key: None,
        ..kit::settings(Provider::Aws, "", "", "")
    };
    let storage = Storage::connect(&settings).await.unwrap();
    for _ in 0..3 {
        let at = Location { bucket: "uploads".to_owned(), key: "k".to_owned() };
        let get = storage.signer().await.unwrap().get_object(&at, Duration::from_secs(900));
        assert!(get.url.starts_with("https://uploads.s3.eu-north-1.amazonaws.com/k?"), "{}", get.url);
        assert!(get.url.contains("X-Amz-Credential=ASIAEXAMPLE%2F"), "{}", get.url);
        assert!(get.url.contains("X-Amz-Security-Token=t%2F1&"), "{}", get.url);
        assert!(get.expires_at <= Utc::now() + TimeDelta::minutes(5), "{}", get.expires_at);
    }
}
