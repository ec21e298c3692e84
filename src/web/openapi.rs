//! The description of the API, made from the handlers and the shapes themselves.

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use super::{api, plan, problem, stream, view};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "foreshock",
        description = "Sees Kubernetes Nodes degrade before users do, and moves their work away \
                       first.\n\nReading is open unless configured otherwise. A `POST` must be \
                       `application/json`, must not come from another site's page, and needs the \
                       configured credentials where the listener is not loopback. Times are RFC \
                       3339 in UTC. Errors are `application/problem+json`. Fields are added over \
                       time, never renamed.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        api::healthz,
        api::readyz,
        api::metrics,
        api::webhook,
        api::health,
        api::stats,
        api::nodes,
        api::node,
        api::plan,
        api::risk_history,
        api::events,
        stream::stream,
        api::alerts,
        api::predictions,
        api::ml_insights,
        api::openapi_json,
        api::start,
        api::stop,
    ),
    components(schemas(problem::Problem, plan::DrainPlan, view::EventJson)),
    modifiers(&Credentials),
    tags(
        (name = "fleet", description = "Nodes, their risk and what is done about it"),
        (name = "events", description = "What happened, as a list and as a stream"),
        (name = "model", description = "What the model says, and what is known about it"),
        (name = "evidence", description = "What others tell"),
        (name = "control", description = "The one switch"),
        (name = "service", description = "foreshock itself"),
    ),
)]
struct Description;

struct Credentials;

impl Modify for Credentials {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_default();
        for (name, scheme) in [
            ("bearer", HttpAuthScheme::Bearer),
            ("basic", HttpAuthScheme::Basic),
        ] {
            components.add_security_scheme(
                name,
                SecurityScheme::Http(HttpBuilder::new().scheme(scheme).build()),
            );
        }
    }
}

/// The OpenAPI 3.1 document of every path, as JSON.
pub fn document() -> String {
    Description::openapi()
        .to_pretty_json()
        .expect("a description made of strings and maps can be written")
}
