//! The public contract, generated from the handlers.

use std::sync::LazyLock;

use actix_web::HttpResponse;
use actix_web::http::header::{self, ContentEncoding, ContentType};
use actix_web::web::{self, Bytes, Data, Path, ServiceConfig};
use entity::{JobKind, Pass};
use utoipa::openapi::path::Parameter;
use utoipa::openapi::schema::{ArrayItems, Schema, SchemaFormat};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{self, Content, OpenApi as Document, RefOr, Required};
use utoipa::{Modify, OpenApi};
use utoipa_swagger_ui::Config;

use super::routes::Documented;
use crate::finding::FindingKind;
use crate::http::problem::{self, Answer, Document as Problem};
use crate::input::{self, Rule};
use crate::jobs::State;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Quaymaster",
        description = "An upload server: open upload sessions here, send the bytes straight to S3, and complete the sessions into assets. Every path that answers GET also answers HEAD.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
        contact(),
    ),
    components(schemas(Problem)),
    security(("bearer" = [])),
)]
struct Api;

/// Returns the document that a running server answers at `/openapi.json`.
pub fn document() -> Document {
    let mut document = Api::openapi();
    document.merge(Documented::openapi());
    let parts: [&dyn Modify; 3] = [&Bearer, &InputRules, &CommonProblems];
    for part in parts {
        part.modify(&mut document);
    }
    document
}

/// Made at the first request, because making it takes as long as hundreds of other answers.
static TEXT: LazyLock<Bytes> =
    LazyLock::new(|| document().to_json().expect("a document of names and texts is JSON").into());

/// `GET /openapi.json`.
async fn answer() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::json()).body(TEXT.clone())
}

/// The pages at `/docs/` may run only their own scripts, and talk only to this server. Some of their images and styles are
/// inline.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
     img-src 'self' data:; font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

/// Mounts the document, and Swagger UI for it at `/docs/`. Every file comes from this binary, and the badge of an external
/// validator is off.
pub(super) fn pages(app: &mut ServiceConfig) {
    let config = Data::new(Config::from("/openapi.json").validator_url("none"));
    let get_only = |path: &str| web::resource(path).default_service(problem::only(vec!["GET"]));
    app.service(get_only("/openapi.json").route(web::get().to(answer)))
        .service(web::redirect("/docs", "/docs/"))
        .service(get_only("/docs/{file:.*}").app_data(config).route(web::get().to(page)));
}

async fn page(file: Path<String>, config: Data<Config<'static>>) -> Answer {
    let found = utoipa_swagger_ui::serve(&file, config.into_inner());
    // Its error type is not `Send`.
    let found = found.map_err(|error| problem::Problem::internal(Some(error.to_string().into())))?;
    let file = found.ok_or_else(problem::Problem::not_found)?;
    let mut answer = HttpResponse::Ok();
    answer
        .content_type(file.content_type)
        .insert_header((header::CONTENT_SECURITY_POLICY, DOCS_POLICY))
        // For browsers that do not know `frame-ancestors`.
        .insert_header((header::X_FRAME_OPTIONS, "DENY"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"));
    if file.gzpipped {
        answer.insert_header(ContentEncoding::Gzip);
    }
    Ok(answer.body(file.bytes.into_owned()))
}

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme));
    }
}

/// The rules of texts that callers send, by the `format` with which a field of the contract names its rule.
fn rules() -> Vec<Rule> {
    let one_of = |format, names: &[&str]| Rule {
        format,
        min_length: None,
        max_length: None,
        pattern: Some(format!("^({})$", names.join("|")).into()),
    };
    let mut rules = input::rules();
    rules.extend([
        one_of("pass", &Pass::ALL.map(Pass::name)),
        one_of("job-kind", &JobKind::ALL.map(JobKind::name)),
        one_of("job-state", &State::ALL.map(State::name)),
        one_of("finding-kind", &FindingKind::ALL.map(FindingKind::name)),
    ]);
    rules
}

/// Puts the rules of texts in the place of the formats that name them, so that each rule is written once.
struct InputRules;

impl Modify for InputRules {
    fn modify(&self, document: &mut Document) {
        let rules = rules();
        for schema in document.components.iter_mut().flat_map(|components| components.schemas.values_mut()) {
            apply_rules(&rules, schema);
        }
        for item in document.paths.paths.values_mut() {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            let parameters = operations.into_iter().flatten().filter_map(|operation| operation.parameters.as_mut());
            for parameter in parameters.flatten() {
                if let RefOr::T(Parameter { schema: Some(schema), .. }) = parameter {
                    apply_rules(&rules, schema);
                }
            }
        }
    }
}

fn apply_rules(rules: &[Rule], schema: &mut RefOr<Schema>) {
    match schema {
        RefOr::T(Schema::Object(object)) => {
            let named =
                |rule: &&Rule| matches!(&object.format, Some(SchemaFormat::Custom(name)) if name == rule.format);
            if let Some(rule) = rules.iter().find(named) {
                object.format = None;
                object.min_length = rule.min_length;
                object.max_length = rule.max_length;
                object.pattern = rule.pattern.as_deref().map(str::to_owned);
            }
            object.properties.values_mut().for_each(|schema| apply_rules(rules, schema));
        }
        RefOr::T(Schema::AllOf(all)) => all.items.iter_mut().for_each(|schema| apply_rules(rules, schema)),
        RefOr::T(Schema::OneOf(one)) => one.items.iter_mut().for_each(|schema| apply_rules(rules, schema)),
        RefOr::T(Schema::AnyOf(any)) => any.items.iter_mut().for_each(|schema| apply_rules(rules, schema)),
        RefOr::T(Schema::Array(array)) => {
            if let ArrayItems::RefOrSchema(items) = &mut array.items {
                apply_rules(rules, items);
            }
        }
        RefOr::T(_) | RefOr::Ref(_) => {}
    }
}

/// Adds the problems that operations have in common, so that none is missing.
struct CommonProblems;

impl Modify for CommonProblems {
    fn modify(&self, document: &mut Document) {
        for (path, item) in &mut document.paths.paths {
            let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete];
            for operation in operations.into_iter().flatten() {
                // A body whose members may all be left out need not be sent.
                if let Some(RefOr::T(body)) = &mut operation.request_body
                    && body.content.values().any(is_nothing)
                {
                    body.required = Some(Required::False);
                }
                let app = is_for_callers(path);
                let has_body = operation.request_body.is_some();
                let has_id = path.contains('{');
                let mut problems = vec![("405", "`method-not-allowed`", true), ("500", "`internal`", true)];
                problems.extend([
                    ("401", "`unauthenticated`", app),
                    ("403", "`permission-denied`", app),
                    ("503", "`storage-unavailable`, `database-unavailable`", app),
                    ("404", "`not-found`", has_id || has_body),
                    ("400", "`malformed-body`", app),
                    ("408", "`request-timeout`", app),
                    ("413", "`body-too-large`", app),
                    ("415", "`unsupported-media-type`", app),
                    ("422", "`validation-failed`", app),
                    (
                        "429",
                        "`rate-limited`: too many requests, too many unread answers, or too many large requests at a time",
                        app,
                    ),
                ]);
                // An operation names its own problems by their codes only.
                for (status, response) in &mut operation.responses.responses {
                    if let RefOr::T(response) = response
                        && status.starts_with(['4', '5'])
                        && response.content.is_empty()
                    {
                        *response = problem(&response.description);
                    }
                }
                for (status, description, applies) in problems {
                    if applies && !operation.responses.responses.contains_key(status) {
                        operation.responses.responses.insert(status.to_owned(), RefOr::T(problem(description)));
                    }
                }
            }
        }
    }
}

/// Whether the path requires a token.
fn is_for_callers(path: &str) -> bool {
    path.starts_with("/app/") || path.starts_with("/admin/")
}

/// Bodies of which every member may be left out.
const MAY_BE_EMPTY: [&str; 3] = ["/Nothing", "/ChangeTenantRequest", "/RunRequest"];

fn is_nothing(content: &RefOr<Content>) -> bool {
    let RefOr::T(content) = content else { return false };
    let Some(RefOr::Ref(schema)) = &content.schema else { return false };
    MAY_BE_EMPTY.iter().any(|name| schema.ref_location.ends_with(name))
}

fn problem(description: &str) -> openapi::Response {
    let schema = openapi::Ref::from_schema_name("Problem");
    let content = openapi::ContentBuilder::new().schema(Some(schema)).build();
    openapi::ResponseBuilder::new().description(description).content("application/problem+json", content).build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use actix_web::body::MessageBody as _;
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_committed_document_is_the_one_that_the_code_makes() {
        let committed = include_str!("../../../docs/openapi.json");
        let made = document().to_pretty_json().unwrap();
        assert!(committed.trim_end() == made, "docs/openapi.json is not up to date: run `make openapi`");
    }

    #[test]
    fn the_document_is_made_once() {
        let text = || answer().now_or_never().unwrap().into_body().try_into_bytes().unwrap();
        let (first, second) = (text(), text());
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(first, document().to_json().unwrap());
    }

    #[test]
    fn every_operation_says_what_it_permits_and_what_can_go_wrong() {
        for (path, item) in document().paths.paths {
            for operation in [item.get, item.put, item.post, item.patch, item.delete].into_iter().flatten() {
                assert!(operation.responses.responses.contains_key("405"), "{path}");
                if is_for_callers(&path) {
                    let extensions = operation.extensions.unwrap_or_default();
                    assert!(extensions.contains_key("x-permission"), "{path} has no x-permission");
                    assert!(operation.responses.responses.contains_key("401"), "{path}");
                }
                assert_eq!(operation.responses.responses.contains_key("429"), is_for_callers(&path), "{path}");
            }
        }
    }
}
