//! The routes, one line for each handler. Its path and its method stand in its `#[utoipa::path]`; the resource, the methods
//! that a 405 names, and the contract are made from there.

use actix_web::http::Method;
use actix_web::web::{self, ServiceConfig};
use actix_web::{Resource, Route};
use pastey::paste;
use utoipa::openapi::path::HttpMethod;
use utoipa::{OpenApi, Path as _};

use super::{admin, assets, brands, events, health, keys, metrics, openapi, uploads};
use crate::http::problem;

macro_rules! routes {
    ($($($module:ident)::+ [$handler:ident],)+) => {
        /// The handlers' part of the contract.
        #[derive(OpenApi)]
        #[openapi(paths($($($module)::+::$handler),+))]
        pub(super) struct Documented;

        paste! {
            fn handlers() -> Vec<Handler> {
                vec![$(Handler {
                    path: $($module)::+::[<__path_ $handler>]::path(),
                    method: method(&$($module)::+::[<__path_ $handler>]::methods()),
                    serve: |route| route.to($($module)::+::$handler),
                }),+]
            }
        }
    };
}

// Where one path is a case of another, it comes first.
routes! {
    // Uploads.
    uploads::list [list],
    uploads::initiate [initiate],
    uploads::batch [initiate_batch],
    uploads::find [find],
    uploads::part_urls [part_url],
    uploads::part_urls [part_urls],
    uploads::resume [resume],
    uploads::activity [activity],
    uploads::cancel [cancel],
    uploads::events [events],
    uploads::wait [wait],
    uploads::receipt [receipt],
    uploads::batch_summary [batch],
    events [stream],
    brands [list],
    // Assets.
    assets::complete [complete],
    assets::complete_batch [complete_batch],
    assets::find [find],
    assets::download [download],
    // Operators and managers.
    admin::uploads [list],
    admin::uploads [inspect],
    admin::uploads [fail],
    admin::uploads [cancel],
    admin::tenants [list],
    admin::tenants [create],
    admin::tenants [find],
    admin::tenants [change],
    admin::tenants [add_brands],
    admin::tenants [usage],
    admin::passes [passes],
    admin::passes [run],
    admin::passes [runs],
    admin::jobs [jobs],
    admin::jobs [discard],
    admin::jobs [retry],
    admin::findings [list],
    admin::actions [list],
    metrics [metrics],
    // Anyone.
    keys [keys],
    health [healthz],
    health [readyz],
}

/// A handler, with the one method and the path that it serves.
struct Handler {
    path: String,
    method: &'static str,
    serve: fn(Route) -> Route,
}

/// Mounts all handlers. A path answers any other method with 405, and names the methods that it takes in `Allow` (RFC 9110,
/// section 15.5.6).
pub(in crate::http) fn routes(app: &mut ServiceConfig) {
    let mut paths: Vec<(String, Vec<Handler>)> = Vec::new();
    for handler in handlers() {
        match paths.iter_mut().find(|(path, _)| *path == handler.path) {
            Some((_, same)) => same.push(handler),
            None => paths.push((handler.path.clone(), vec![handler])),
        }
    }
    for (path, handlers) in paths {
        app.service(resource(&path, &handlers));
    }
    app.configure(openapi::pages);
}

fn resource(path: &str, handlers: &[Handler]) -> Resource {
    let allow = handlers.iter().map(|handler| handler.method).collect();
    let served = handlers.iter().fold(web::resource(path), |resource, handler| {
        let method = Method::from_bytes(handler.method.as_bytes()).expect("the name of a method");
        resource.route((handler.serve)(web::method(method)))
    });
    served.default_service(problem::only(allow))
}

fn method(methods: &[HttpMethod]) -> &'static str {
    match methods {
        [HttpMethod::Get] => "GET",
        [HttpMethod::Put] => "PUT",
        [HttpMethod::Post] => "POST",
        [HttpMethod::Patch] => "PATCH",
        [HttpMethod::Delete] => "DELETE",
        _ => panic!("a handler serves one method, and HEAD is answered for each GET"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn each_handler_has_a_path_and_a_method_of_its_own() {
        let handlers = handlers();
        let served: HashSet<_> = handlers.iter().map(|handler| (&handler.path, handler.method)).collect();
        assert_eq!(served.len(), handlers.len());
        assert!(handlers.len() > 30, "{}", handlers.len());
    }
}
