//! Ollama's calls that change which models there are: pull, copy and delete. Only where the server's owner allows it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http_body::Frame;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{ByName, Lines, error};
use crate::app::App;
use crate::app::downloads::{Downloads, Step, Steps};
use crate::error::Refusal;
use crate::json::{self, Json};
use crate::library::Library;
use crate::limits::{KEEP_ALIVE, LAST_REQUEST, LOOK, PULLED_NAME};
use crate::models::{Deleted, Taken};
use crate::stream::{self, Dialect};

#[derive(Deserialize)]
pub(crate) struct Copy {
    source: Option<String>,
    destination: Option<String>,
}

impl json::Body for Copy {}

fn allowed(app: &App) -> Result<&Arc<dyn Library>, Refusal> {
    app.open()?;
    app.options.library.as_ref().ok_or_else(|| {
        Refusal::forbidden(
            "clients cannot download, copy or delete models here: `tern serve --manage-models` allows it",
        )
    })
}

/// A name that a request must have.
fn needed(name: Option<String>, field: &str) -> Result<String, Refusal> {
    match name {
        Some(name) if name.len() > PULLED_NAME => {
            Err(Refusal::field(field, format!("expected a name of at most {PULLED_NAME} bytes")))
        }
        Some(name) if !name.is_empty() => Ok(name),
        _ => Err(Refusal::field(field, "expected the name of a model, found none")),
    }
}

/// Brings a model that is not here, and tells how far it is. What is here already is not asked for again.
pub(crate) async fn pull(State(app): State<Arc<App>>, body: Result<Json<ByName>, Refusal>) -> Response {
    pulled(app, body).await.unwrap_or_else(|refusal| error(&refusal))
}

async fn pulled(app: Arc<App>, body: Result<Json<ByName>, Refusal>) -> Result<Response, Refusal> {
    let Json(ByName { model, stream }) = body?;
    let asked = needed(model, "model")?;
    let steps = match app.models.named(&asked) {
        Ok(_) => None,
        Err(_) => begin(&app, &asked)?,
    };
    let streams = stream != Some(false);
    Ok(match steps {
        Some(steps) if streams => streamed(steps),
        Some(steps) => last(steps).await.map(|()| axum::Json(success()).into_response())?,
        None if streams => {
            ([(header::CONTENT_TYPE, Lines::TYPE)], format!("{}\n", success())).into_response()
        }
        None => axum::Json(success()).into_response(),
    })
}

fn success() -> Value {
    json!({"status": "success"})
}

/// The steps of this model's download; `None` where it is here under another name.
fn begin(app: &Arc<App>, asked: &str) -> Result<Option<Steps>, Refusal> {
    let library = allowed(app)?;
    let named = library.find(asked)?;
    match app.models.named(&named.name) {
        Ok(_) => Ok(None),
        Err(_) => Downloads::join(app, library, named).map(Some),
    }
}

/// Waits for the end of a download.
async fn last(mut steps: Steps) -> Result<(), Refusal> {
    loop {
        match &*steps.borrow_and_update() {
            Step::Done => return Ok(()),
            Step::Failed(refusal) => return Err(refusal.clone()),
            Step::Asks | Step::Comes(_) => {}
        }
        steps.changed().await.map_err(|_| Refusal::internal("the download has stopped"))?;
    }
}

fn line(step: &Step) -> Value {
    match step {
        Step::Asks => json!({"status": "pulling manifest"}),
        Step::Comes(file) => {
            let hash = file.digest.rsplit(':').next().unwrap_or_default();
            let status = match file.waits {
                true => "waiting for another program that downloads it".to_owned(),
                false => format!("pulling {}", &hash[..hash.len().min(12)]),
            };
            json!({"status": status, "digest": file.digest, "total": file.total, "completed": file.done})
        }
        Step::Done => success(),
        Step::Failed(refusal) => json!({"error": refusal.message}),
    }
}

/// A download as a stream of lines. It ends with the client: nobody else holds its steps.
fn streamed(mut steps: Steps) -> Response {
    let (sender, lines) = mpsc::channel::<Bytes>(2);
    tokio::spawn(async move {
        loop {
            let step = steps.borrow_and_update().clone();
            let sent = sender.send(format!("{}\n", line(&step)).into()).await;
            if sent.is_err() || matches!(step, Step::Done | Step::Failed(_)) {
                return;
            }
            tokio::select! {
                // Who hears nothing for long hears the same again.
                changed = timeout(KEEP_ALIVE, steps.changed()) => if let Ok(Err(_)) = changed { return },
                () = sender.closed() => return,
            }
        }
    });
    stream::streamed(Lines::TYPE, Told(lines))
}

/// A body of lines that come through a channel.
struct Told(mpsc::Receiver<Bytes>);

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

/// Gives a model another name, for as long as the server runs.
pub(crate) async fn copy(State(app): State<Arc<App>>, body: Result<Json<Copy>, Refusal>) -> Response {
    let copied = || {
        let Json(Copy { source, destination }) = body?;
        allowed(&app)?;
        app.models.copy(&needed(source, "source")?, &needed(destination, "destination")?)
    };
    copied().map_or_else(|refusal| error(&refusal), |()| StatusCode::OK.into_response())
}

/// Takes a model off the list and the disk, or forgets a name that a client gave.
pub(crate) async fn delete(State(app): State<Arc<App>>, body: Result<Json<ByName>, Refusal>) -> Response {
    deleted(&app, body).await.map_or_else(|refusal| error(&refusal), |()| StatusCode::OK.into_response())
}

async fn deleted(app: &Arc<App>, body: Result<Json<ByName>, Refusal>) -> Result<(), Refusal> {
    let Json(ByName { model, .. }) = body?;
    let library = allowed(app)?.clone();
    let asked = needed(model, "model")?;
    let start = Instant::now();
    loop {
        match app.models.take(&asked)? {
            Deleted::Copy => return Ok(()),
            // The last words of an answer may be on their way.
            Deleted::Busy(refusal) if start.elapsed() > LAST_REQUEST => return Err(refusal),
            Deleted::Busy(_) => tokio::time::sleep(LOOK).await,
            Deleted::Models(taken, place) => {
                let app = app.clone();
                // It ends also where the client does not wait for it.
                let removed =
                    tokio::task::spawn_blocking(move || remove(&app, library.as_ref(), taken, &place));
                return removed.await.unwrap_or_else(|_| Err(Refusal::internal("internal error")));
            }
        }
    }
}

/// Removes what was taken off the list from the disk.
fn remove(app: &App, library: &dyn Library, mut taken: Taken, place: &str) -> Result<(), Refusal> {
    let removed = app.downloads.close(place).and_then(|_closed| {
        for thread in taken.threads() {
            let _ = thread.join();
        }
        tern::give_back();
        library.remove(place).map_err(Refusal::from)
    });
    let names = taken.names().join(", ");
    match removed {
        Ok(_) => {
            app.options.log.event("deleted", json!({"model": names, "message": names}));
            Ok(())
        }
        Err(refusal) => {
            app.models.put_back(taken);
            Err(refusal)
        }
    }
}
