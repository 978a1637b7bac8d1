//! HTTP for monitoring: metrics, the console's tables as JSON, and whether Poolhouse is well. Nothing can be changed here.
//!
//! It runs on a thread of its own, so that a page that takes long, or somebody who asks for many, holds up no client. Who
//! reads slowly, or sends slowly, is cut off. Whoever comes is served: when there are too many connections, the one gives
//! way that has asked for nothing for longest, of the address with the most, so a crowd blinds nobody.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, RawQuery, Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::{
    net::{TcpListener, TcpStream},
    task::yield_now,
    time::{sleep, timeout},
};

use super::{Desk, Show, metrics};
use crate::{
    net::{Admission, Admitted, Crowd},
    tasks::{self, Scope},
    text::plain,
};

/// Connections at the same time.
const CROWD: Crowd = Crowd { all: 128, per_address: 32 };
/// How long a request's head may take to come.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
/// How long a connection may last, whatever it does.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// What requests are answered with.
#[derive(Clone)]
struct Service {
    desk: Arc<Desk>,
    token: Option<Arc<str>>,
    /// Who asks is on this machine.
    local: bool,
    /// Its place.
    place: Arc<Mutex<Admitted>>,
    /// Held while a page is made that takes long.
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl Service {
    /// Something has been asked for.
    fn renew(&self) {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).renew();
    }

    /// Makes a page that takes long, one after the other, apart from the event loop: whoever comes is taken in meanwhile, and
    /// told whether all is well.
    async fn make(&self, make: impl FnOnce(&Desk) -> String + Send + 'static, kind: &'static str) -> Response {
        let _turn = self.turn.lock().await;
        let desk = self.desk.clone();
        match tasks::compute(move || make(&desk)).await {
            Some(page) => ([(header::CONTENT_TYPE, kind)], page).into_response(),
            None => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}

/// Answers until the scope is asked to stop. Who is not on this machine needs the `token`, but for `/healthz` and `/readyz`;
/// without a token that is nobody.
pub async fn serve_http(listener: TcpListener, desk: Arc<Desk>, token: Option<Arc<str>>, scope: Scope) {
    // Nobody waits for them when Poolhouse ends.
    let connections = scope.child();
    let (places, turn) = (Arc::<Admission>::default(), Arc::<tokio::sync::Mutex<()>>::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = scope.stopping() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a connection for HTTP");
                sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let place = places.admit(Some(peer.ip()), CROWD);
        let gives_way = place.gives_way();
        let place = Arc::new(Mutex::new(place));
        let (desk, token, turn) = (desk.clone(), token.clone(), turn.clone());
        let service = Service { desk, token, local: is_local(peer), place, turn };
        connections.spawn("http", async move {
            tokio::select! {
                biased;
                _ = timeout(CONNECTION_LIMIT, serve_one(stream, service)) => {}
                () = gives_way => {}
            }
        });
        // Whoever has come with a request is answered before the next one comes, who might take the place.
        yield_now().await;
    }
}

fn is_local(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

async fn serve_one(stream: TcpStream, service: Service) {
    let service = TowerToHyperService::new(router(service));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection for HTTP ended");
    }
}

fn router(service: Service) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/metrics", get(metrics_page))
        .route("/api/{table}", get(table))
        .route_layer(middleware::from_fn_with_state(service.clone(), guard))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .fallback(|| async { problem(StatusCode::NOT_FOUND, "there is no such page; / lists what there is") })
        .layer(middleware::from_fn_with_state(service.clone(), note_request))
        .with_state(service)
}

async fn note_request(State(service): State<Service>, request: Request, next: Next) -> Response {
    service.renew();
    next.run(request).await
}

/// Lets those in that may read.
async fn guard(State(service): State<Service>, request: Request, next: Next) -> Response {
    if service.local || service.token.as_deref().is_some_and(|token| is_shown(request.headers(), token)) {
        return next.run(request).await;
    }
    let mut refusal = problem(StatusCode::UNAUTHORIZED, "this needs the header Authorization: Bearer with admin.token");
    refusal.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
    refusal
}

fn is_shown(headers: &HeaderMap, token: &str) -> bool {
    let given = headers.get(header::AUTHORIZATION).map(header::HeaderValue::as_bytes).unwrap_or_default();
    let (scheme, given) = given.split_at(given.len().min(7));
    scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(given.ct_eq(token.as_bytes()))
}

/// What is wrong with a request.
#[derive(Serialize)]
struct Problem<'a> {
    error: &'a str,
}

fn problem(code: StatusCode, words: &str) -> Response {
    (code, [(header::CONTENT_TYPE, "application/json")], json(&Problem { error: words })).into_response()
}

async fn metrics_page(State(service): State<Service>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    let format = metrics::Format::accepted(accepted.unwrap_or_default());
    service.make(move |desk| metrics::page(desk, format), format.content_type()).await
}

/// One of the console's tables, by its name in lower case: a list of objects.
async fn table(State(service): State<Service>, Path(name): Path<String>) -> Response {
    match Show::named(&name) {
        Some(show) if name == path(show) => service.make(move |desk| json(&desk.table(show)), "application/json").await,
        _ => problem(StatusCode::NOT_FOUND, "there is no such table; / lists what there is"),
    }
}

fn path(show: Show) -> String {
    show.name().to_ascii_lowercase()
}

/// A line of JSON. What is handed in are texts, numbers, lists and objects, of which every one can be written.
fn json(answer: &impl Serialize) -> String {
    serde_json::to_string(answer).map_or_else(|error| error.to_string(), |text| text + "\n")
}

/// Whether Poolhouse can serve writes, or with `?reads` reads.
async fn ready(State(service): State<Service>, RawQuery(query): RawQuery) -> Response {
    let reads = match query.as_deref() {
        None | Some("" | "writes") => false,
        Some("reads" | "reads=" | "reads=1" | "reads=true") => true,
        Some(_) => return problem(StatusCode::BAD_REQUEST, "ask /readyz or /readyz?reads"),
    };
    match service.desk.ready(reads) {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", plain(&why))).into_response(),
    }
}

async fn index() -> Html<String> {
    let item = |path: &str, about: &str| format!("<li><a href=\"{path}\">{path}</a>: {about}</li>\n");
    let tables: String = Show::ALL.iter().map(|show| item(&format!("/api/{}", path(*show)), show.about())).collect();
    let pages = [
        item("/metrics", "metrics, in Prometheus' text format or, when asked for, OpenMetrics"),
        item("/healthz", "whether the process is alive"),
        item("/readyz", "whether it can serve writes; /readyz?reads for reads"),
    ]
    .concat();
    Html(format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Poolhouse</title>\n<h1>Poolhouse {}</h1>\n\
         <ul>\n{pages}</ul>\n<h2>The console's tables as JSON</h2>\n<ul>\n{tables}</ul>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::table::{Column, Table, Type, Value};

    #[test]
    fn a_token_is_shown_as_a_bearer() {
        let shown = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, text.parse().unwrap());
            is_shown(&headers, "sesame")
        };
        assert!(shown("Bearer sesame") && shown("bearer sesame"));
        for wrong in ["sesame", "Bearer", "Bearer ", "Bearer sesam", "Bearer sesame ", "Basic sesame", "Bearer Sesame"]
        {
            assert!(!shown(wrong), "{wrong}");
        }
        assert!(!is_shown(&HeaderMap::new(), "sesame") && !is_shown(&HeaderMap::new(), ""));
    }

    #[test]
    fn who_is_local() {
        let local = |text: &str| is_local(text.parse().unwrap());
        assert!(local("127.0.0.1:1") && local("127.8.8.8:1") && local("[::1]:1") && local("[::ffff:127.0.0.1]:1"));
        assert!(!local("10.0.0.1:1") && !local("[::ffff:10.0.0.1]:1") && !local("[fe80::1]:1"));
    }

    #[test]
    fn tables_become_lists_of_objects() {
        let mut table = Table::new(vec![Column::new("name", Type::Text), Column::new("count", Type::Int8)]);
        table.rows = vec![vec!["a\"b".into(), 3_u64.into()], vec![Value::Null, Value::Float(1.5)]];
        let text = "[{\"name\":\"a\\\"b\",\"count\":3},{\"name\":null,\"count\":1.5}]\n";
        assert_eq!(json(&table), text);
        assert_eq!(json(&Problem { error: "no" }), "{\"error\":\"no\"}\n");
    }
}
