//! A small HTTP service that exposes an engine: other programs create, watch and stop atoms by it.
//!
//! `cargo run --example http_service STORE ADDRESS`, for example `state 127.0.0.1:8080`; then
//!
//! ```console
//! $ curl -d '{"command": ["sh", "-c", "echo hello; exit 3"]}' -H 'content-type: application/json' localhost:8080/atoms
//! $ curl localhost:8080/atoms/ID/wait
//! $ curl localhost:8080/atoms/ID/logs
//! ```
//!
//! It asks nobody who they are: whoever reaches the address runs programs. Put something before it that does.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use caesium::{
    Atom, AtomId, AtomSpec, CreateRequest, DeleteRequest, Engine, Error, ListRequest, OnClose,
    ProcessEngine, StopRequest,
};
use serde::Deserialize;
use tokio::task::spawn_blocking;

type Shared = State<Arc<dyn Engine>>;

/// Not `#[tokio::main]`: `init` comes first, before any thread. In the process that is to be the keeper
/// it does not return.
fn main() -> Result<(), Box<dyn std::error::Error>> {
    caesium::init();
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [store, address] = &args[..] else {
        return Err("usage: http_service STORE ADDRESS".into());
    };
    let engine = ProcessEngine::options().on_close(OnClose::Leave).open(store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(Arc::new(engine.clone()), address))?;
    engine.close()?;
    Ok(())
}

async fn serve(engine: Arc<dyn Engine>, address: &str) -> std::io::Result<()> {
    let service = Router::new()
        .route("/atoms", get(list).post(create))
        .route("/atoms/{id}", get(inspect).delete(delete))
        .route("/atoms/{id}/wait", get(wait))
        .route("/atoms/{id}/logs", get(logs))
        .route("/atoms/{id}/stop", post(stop))
        .with_state(engine);
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, service).with_graceful_shutdown(asked_to_end()).await
}

async fn asked_to_end() {
    use tokio::signal::unix::{SignalKind, signal};
    // A service that cannot be told to end goes on.
    if let Ok(mut terminate) = signal(SignalKind::terminate()) {
        terminate.recv().await;
    }
}

/// What a client may ask for. Not the whole spec: that has users, limits and paths.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    command: Vec<String>,
    name: Option<String>,
    /// A request that is made again with the same key gives the same atom.
    key: Option<String>,
}

/// An engine's error as a status: what the client did wrong, or what went wrong here.
struct Failed(Error);

impl IntoResponse for Failed {
    #[expect(clippy::wildcard_enum_match_arm, reason = "errors are told apart by whose they are")]
    fn into_response(self) -> Response {
        let status = match &self.0 {
            Error::NotFound(_) => StatusCode::NOT_FOUND,
            Error::InvalidSpec(_) => StatusCode::BAD_REQUEST,
            Error::NameInUse { .. } | Error::KeyInUse { .. } | Error::Rejected { .. } => {
                StatusCode::CONFLICT
            }
            // Whatever else there is and will be is not the client's doing.
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, format!("{}\n", self.0)).into_response()
    }
}

/// Has the engine do what blocks, where that holds nobody up.
async fn blocking<T: Send + 'static>(
    engine: Arc<dyn Engine>,
    work: impl FnOnce(&dyn Engine) -> Result<T, Error> + Send + 'static,
) -> Result<T, Failed> {
    // One that panicked, or was cancelled because the service ends, has no answer.
    spawn_blocking(move || work(&*engine)).await.unwrap_or(Err(Error::Closed)).map_err(Failed)
}

async fn list(State(engine): Shared) -> Result<Json<Vec<Atom>>, Failed> {
    blocking(engine, |engine| engine.list(&ListRequest::all().newest_first().limit(1000)))
        .await
        .map(Json)
}

async fn create(State(engine): Shared, Json(new): Json<New>) -> Result<Response, Failed> {
    let mut command = new.command.into_iter();
    let mut spec = AtomSpec::command(command.next().unwrap_or_default()).args(command);
    if let Some(name) = new.name {
        spec = spec.name(name);
    }
    if let Some(key) = new.key {
        spec = spec.key(key);
    }
    let atom = blocking(engine, move |engine| engine.create(CreateRequest::from(spec))).await?;
    Ok((StatusCode::CREATED, Json(atom)).into_response())
}

async fn inspect(State(engine): Shared, Path(id): Path<AtomId>) -> Result<Json<Atom>, Failed> {
    blocking(engine, move |engine| engine.get(&id.into())).await.map(Json)
}

/// A thousand clients may wait here, and cost no thread.
async fn wait(State(engine): Shared, Path(id): Path<AtomId>) -> Result<Json<Atom>, Failed> {
    engine.wait_async(id).await.map(Json).map_err(Failed)
}

async fn logs(State(engine): Shared, Path(id): Path<AtomId>) -> Result<Bytes, Failed> {
    blocking(engine, move |engine| engine.logs(&id.into())?.read_to_end()).await.map(Bytes::from)
}

async fn stop(State(engine): Shared, Path(id): Path<AtomId>) -> Result<Json<Atom>, Failed> {
    blocking(engine, move |engine| engine.stop(&StopRequest::from(id))).await.map(Json)
}

async fn delete(State(engine): Shared, Path(id): Path<AtomId>) -> Result<StatusCode, Failed> {
    blocking(engine, move |engine| engine.delete(&DeleteRequest::from(id).force())).await?;
    Ok(StatusCode::NO_CONTENT)
}
