//! The server without a socket, for programs that have it inside themselves: requests go in as bodies, answers come
//! out as bodies, and between them is what clients get, by the same routes, queue and batch.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response, header};
use bytes::Bytes;
use http_body::Body as _;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tern::Model;
use tokio::sync::oneshot;

use crate::app::App;
use crate::app::load;
use crate::error::Refusal;
use crate::http::routes::routes;
use crate::options::Options;
use crate::ready::{Phase, Ready};
use crate::served::{Served, Serving};
use crate::server::Error;
use crate::worker::Message;

/// A server of one model in this process. It is used inside a tokio runtime; dropped, it ends when its last answer has.
#[derive(Clone)]
pub struct Local {
    app: Arc<App>,
    routes: TowerToHyperService<Router>,
    model: Arc<Model>,
    context: usize,
}

/// An answer on its way; dropped, the work for it is cancelled.
pub struct Answer {
    status: u16,
    body: Pin<Box<Body>>,
}

impl Local {
    /// Loads the model and is ready for requests.
    pub async fn start(model: Served, options: Options) -> Result<Self, Error> {
        let app = Arc::new(App::new(options, Serving::One(Box::new(model))));
        let (ended, worker_ended) = oneshot::channel();
        load::one(&app, ended).map_err(Error::Listener)?;
        let mut phase = app.phase.subscribe();
        tokio::select! {
            () = async { drop(phase.wait_for(|phase| *phase == Phase::Serving).await) } => {}
            ended = worker_ended => return Err(Error::of(ended)),
        }
        let ready = app.models.one(None).ok().and_then(|listed| listed.ready).ok_or(Error::Worker)?;
        let Ready { model, context, .. } = &*ready;
        let (model, context) = (model.clone(), *context);
        Ok(Self { routes: TowerToHyperService::new(routes(app.clone())), app, model, context })
    }

    /// The model, for what no request does. It runs on the same threads, in turns with the server's steps.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// Tokens of one text, prompt and answer.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Posts a body of JSON to a path.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let request = Request::post(path)
            .header(header::HOST, HeaderValue::from_static("localhost"))
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Body::from(body.into()));
        let response: Response<Body> = match request {
            Ok(request) => match self.routes.call(request).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
            Err(_) => Refusal::not_found(path).response_for("/v1/"),
        };
        let (head, body) = response.into_parts();
        Answer { status: head.status.as_u16(), body: Box::pin(body) }
    }

    /// Takes no more requests and ends those that run.
    pub fn end(&self) {
        self.app.phase.send_replace(Phase::Draining);
        for ready in self.app.models.all().into_iter().filter_map(|model| model.ready) {
            let _ = ready.worker.send(Message::Abort(Refusal::unavailable("the model was closed")));
        }
    }
}

impl Answer {
    /// The status, as HTTP numbers them.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The next piece of its body.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let frame = std::future::poll_fn(|context| self.body.as_mut().poll_frame(context)).await?;
            // Such a body has no errors and no trailers.
            if let Some(data) = frame.ok()?.into_data().ok().filter(|data| !data.is_empty()) {
                return Some(data);
            }
        }
    }

    /// All of its body.
    pub async fn whole(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(piece) = self.next().await {
            all.extend_from_slice(&piece);
        }
        all
    }
}
