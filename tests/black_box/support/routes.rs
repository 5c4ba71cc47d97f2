//! The routes that are registered with a router.

use std::collections::BTreeSet;

use axum::Router;

/// A method and the template of a path, such as `GET` and `/files/{file}`.
pub(crate) type Route = (String, String);

/// All routes of a router.
///
/// The router has no method that lists them, so they are read from its debug text. A text of
/// another form makes this panic.
pub(crate) fn routes_of(app: &Router) -> BTreeSet<Route> {
    let text = format!("{app:?}");
    let (text, _) = text.split_once("fallback_router:").unwrap();
    let (endpoints, paths) = text.split_once("node: Node").unwrap();
    let mut routes = BTreeSet::new();
    for entry in paths.split("RouteId(").skip(1) {
        let (id, path) = entry.split_once("): \"").unwrap();
        let (path, _) = path.split_once('"').unwrap();
        let marker = format!("RouteId({id}): MethodRouter(");
        let (_, endpoint) = endpoints.split_once(&marker).unwrap();
        let (_, methods) = endpoint.split_once("allow_header: Bytes(b\"").unwrap();
        let (methods, _) = methods.split_once('"').unwrap();
        for method in methods.split(',') {
            routes.insert((method.to_owned(), path.to_owned()));
        }
    }
    assert!(!routes.is_empty(), "{text}");
    routes
}
