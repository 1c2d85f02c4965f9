//! An asset's file is fetched from the store by a URL that ends.

use std::time::Duration;

use serde_json::json;

use crate::kit::{Actor, Reply, TestApp, Upload, stories};
use crate::promote::{completed, promoted};

stories![
    a_ready_asset_is_fetched_by_redirect,
    the_url_can_be_had_instead,
    names_arrive_as_they_were_given,
    only_what_cannot_run_is_shown_in_place,
    only_a_ready_asset_is_handed_out,
    the_life_of_a_url_has_bounds,
    who_may_not_see_the_asset_may_not_fetch_it,
    the_url_is_good_for_one_object_and_one_answer,
];

async fn download(actor: &Actor, id: &str, query: &str) -> Reply {
    let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let path = format!("/app/assets/{id}/download{query}");
    let response = http.get(actor.app.url(&path)).bearer_auth(actor.token()).send().await.unwrap();
    Reply::read(format!("GET {path}"), response).await
}

/// A READY asset of this name and type.
async fn ready(app: &TestApp, ann: &Actor, file_name: &str, mime_type: &str) -> (Upload, String) {
    let body = json!({"file_name": file_name, "file_size": 100, "mime_type": mime_type});
    let upload = Upload::new(ann.initiate_with(&body).await.created());
    assert_eq!(ann.send(&upload).await, 200);
    let asset = ann.complete(&upload).await.created();
    promoted(app, ann, &upload).await.unwrap();
    (upload, asset["asset_id"].as_str().unwrap().to_owned())
}

async fn a_ready_asset_is_fetched_by_redirect(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, id) = ready(&app, &ann, "reel.mov", "video/quicktime").await;
    let answer = download(&ann, &id, "").await;
    assert_eq!(answer.status, 302, "{answer}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let url = answer.header("location");
    assert!(url.contains(&format!("/assets/{}/{id}/original?", ann.tenant.id)), "{url}");
    assert!(!url.contains("temp/"), "{url}");
    // What the browsers see of the store: past the server's own way to it, and so past the proxy.
    let public = app.store.env.iter().find(|(name, _)| name.ends_with("PUBLIC_ENDPOINT")).unwrap();
    assert!(url.starts_with(&public.1), "{url}");

    let file = app.http.get(url).send().await.unwrap();
    assert_eq!(file.status(), 200);
    assert_eq!(file.headers()["content-disposition"], "attachment; filename=\"reel.mov\"");
    assert_eq!(file.headers()["content-type"], "video/quicktime");
    assert!(file.bytes().await.unwrap() == upload.bytes);
}

async fn the_url_can_be_had_instead(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, id) = ready(&app, &ann, "reel.mov", "video/quicktime").await;
    let answer = download(&ann, &id, "?redirect=false&expires_in=60").await;
    assert_eq!(answer.header("cache-control"), "no-store");
    let answer = answer.ok();
    let ends: chrono::DateTime<chrono::Utc> = answer["expires_at"].as_str().unwrap().parse().unwrap();
    let left = (ends - chrono::Utc::now()).num_seconds();
    assert!((50..=60).contains(&left), "{left}");
    let url = answer["url"].as_str().unwrap();
    assert!(url.contains("X-Amz-Expires=60&"), "{url}");
    let request = app.http.get(url).header("range", "bytes=10-19");
    let part = request.send().await.unwrap();
    assert_eq!(part.status(), 206);
    assert!(part.bytes().await.unwrap() == upload.bytes[10..20]);
    assert_eq!(download(&ann, &id, "?redirect=true").await.status, 302);
}

async fn names_arrive_as_they_were_given(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for (name, header) in [
        ("📦 reel.mov", "attachment; filename=\"_ reel.mov\"; filename*=UTF-8''%F0%9F%93%A6%20reel.mov"),
        (
            "say \"hi\"; x=y.txt",
            "attachment; filename=\"say _hi_; x=y.txt\"; filename*=UTF-8''say%20%22hi%22%3B%20x%3Dy.txt",
        ),
        ("100%+&#?.txt", "attachment; filename=\"100_+&#?.txt\"; filename*=UTF-8''100%25+&#%3F.txt"),
        ("invoice\u{202e}gpj.exe", "attachment; filename=\"invoicegpj.exe\""),
        ("\u{200f}חוזה.pdf", "attachment; filename=\"____.pdf\"; filename*=UTF-8''%D7%97%D7%95%D7%96%D7%94.pdf"),
    ] {
        let (upload, id) = ready(&app, &ann, name, "application/octet-stream").await;
        let url = download(&ann, &id, "?redirect=false").await.ok()["url"].as_str().unwrap().to_owned();
        let file = app.http.get(&url).send().await.unwrap();
        assert_eq!(file.status(), 200, "{name}: {url}");
        assert_eq!(file.headers()["content-disposition"], header, "{name}");
        assert!(file.bytes().await.unwrap() == upload.bytes);
    }
}

async fn only_what_cannot_run_is_shown_in_place(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    for (mime_type, shown) in [
        ("image/png", true),
        ("video/mp4", true),
        ("text/html", false),
        ("image/svg+xml", false),
        ("application/pdf", false),
    ] {
        let (_, id) = ready(&app, &ann, "file", mime_type).await;
        for (query, wants) in [("", false), ("&disposition=attachment", false), ("&disposition=inline", true)] {
            let answer = download(&ann, &id, &format!("?redirect=false{query}")).await.ok();
            let file = app.http.get(answer["url"].as_str().unwrap()).send().await.unwrap();
            let kind = if shown && wants { "inline" } else { "attachment" };
            let header = format!("{kind}; filename=\"file\"");
            assert_eq!(file.headers()["content-disposition"], *header, "{mime_type} {query}");
            assert_eq!(file.headers()["content-type"], mime_type);
        }
    }
}

async fn only_a_ready_asset_is_handed_out(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (upload, id) = completed(&ann, "note.txt", 10).await;
    download(&ann, &id, "").await.is_problem(409, "asset-not-ready");
    download(&ann, &id, "?redirect=false").await.is_problem(409, "asset-not-ready");
    app.store.delete(&upload.key()).await;
    promoted(&app, &ann, &upload).await.unwrap();
    let problem = download(&ann, &id, "").await.is_problem(409, "asset-not-ready");
    assert!(problem["detail"].as_str().unwrap().contains("FAILED"), "{problem}");
}

async fn the_life_of_a_url_has_bounds(app: TestApp) {
    app.restart_with(&[("QUAYMASTER_DOWNLOADS__URL_TTL_MAX_SECS", "100")]).await;
    let ann = app.tenant("acme").user("ann");
    let (_, id) = ready(&app, &ann, "reel.mov", "video/quicktime").await;
    for (query, secs) in [("", 100), ("&expires_in=1", 1), ("&expires_in=100", 100)] {
        let answer = download(&ann, &id, &format!("?redirect=false{query}")).await.ok();
        let url = answer["url"].as_str().unwrap();
        assert!(url.contains(&format!("X-Amz-Expires={secs}&")), "{url}");
    }
    for expires_in in ["0", "101", "-1", "99999999999999999999"] {
        let query = format!("?expires_in={expires_in}");
        download(&ann, &id, &query).await.is_invalid(&[("?expires_in", "out-of-range")]);
    }
    download(&ann, &id, "?expires_in=soon").await.is_invalid(&[("?expires_in", "wrong-type")]);
    download(&ann, &id, "?redirect=perhaps").await.is_invalid(&[("?redirect", "wrong-type")]);
    download(&ann, &id, "?colour=red").await.is_invalid(&[("?colour", "unknown-field")]);
    let odd = download(&ann, &id, "?disposition=form-data").await.is_problem(422, "validation-failed");
    assert_eq!(odd["errors"][0]["pointer"], "?disposition", "{odd}");

    let brief = download(&ann, &id, "?redirect=false&expires_in=1").await.ok();
    // The store's clock is the wall's: there is nothing to move.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let late = app.http.get(brief["url"].as_str().unwrap()).send().await.unwrap();
    assert!(late.status().is_client_error(), "{}", late.status());
}

async fn who_may_not_see_the_asset_may_not_fetch_it(app: TestApp) {
    let acme = app.tenant("acme");
    let ann = acme.user("ann");
    let (_, id) = ready(&app, &ann, "reel.mov", "video/quicktime").await;
    let unknown = "01997b7e-0000-7000-8000-000000000000";
    download(&ann, unknown, "").await.is_problem(404, "not-found");
    download(&ann, "x", "").await.is_problem(404, "not-found");
    download(&acme.user("bob").brands(&["second"]), &id, "").await.is_problem(404, "not-found");
    download(&app.tenant("globex").user("eve"), &id, "").await.is_problem(404, "not-found");
    let uploader = acme.user("cat").permissions(&["uploads.create", "assets.create"]);
    download(&uploader, &id, "").await.is_problem(403, "permission-denied");
    // Everybody of the brand sees its assets.
    assert_eq!(download(&acme.user("dan").permissions(&["assets.view"]), &id, "").await.status, 302);
}

async fn the_url_is_good_for_one_object_and_one_answer(app: TestApp) {
    let ann = app.tenant("acme").user("ann");
    let (_, id) = ready(&app, &ann, "page.html", "text/html").await;
    let (_, other) = ready(&app, &ann, "other.html", "text/html").await;
    let url = download(&ann, &id, "?redirect=false").await.ok()["url"].as_str().unwrap().to_owned();
    for forged in [
        url.replace("attachment%3B", "inline%3B"),
        url.replace("text%2Fhtml", "text%2Fplain"),
        url.replace(&id, &other),
        url.replace("X-Amz-Expires=3600", "X-Amz-Expires=36000"),
    ] {
        assert_ne!(forged, url);
        let status = app.http.get(&forged).send().await.unwrap().status();
        assert!(status.is_client_error(), "{forged}: {status}");
    }
    let put = app.http.put(&url).body("mine").send().await.unwrap().status();
    assert!(put.is_client_error(), "{put}");
}
