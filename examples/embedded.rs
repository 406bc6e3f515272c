//! A web service with a pipeline inside: orders are posted, counted per user in durable state, and asked for.
//!
//! ```text
//! cargo run --example embedded
//! curl -d '{"user": "ann", "cents": 1250}' -H 'content-type: application/json' 127.0.0.1:8080/orders
//! curl -X POST 127.0.0.1:8080/checkpoint        all that was posted before survives kill -9 from here on
//! curl 127.0.0.1:8080/totals/ann                as of the last checkpoint; also: /status, and /metrics for Prometheus
//! ```

use axum::extract::{Path, State as Service};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use clap::Parser;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millstream::prelude::*;
use millstream::sinks::ChannelSink;
use millstream::sources::{ChannelSender, ChannelSource};
use millstream::{JobHandle, JobStatus};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::{path::PathBuf, sync::Arc, sync::Mutex, sync::PoisonError};

#[derive(Parser)]
struct Flags {
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: String,
    #[arg(long, default_value = "millstream-data/embedded")]
    data_dir: PathBuf,
    #[arg(long, default_value_t = 1)]
    checkpoint_seconds: u64,
}

#[derive(Clone, Serialize, Deserialize)]
struct Order {
    user: String,
    cents: u64,
}
type Total = (String, u64);
type Totals = Arc<Mutex<HashMap<String, u64>>>;

/// What requests are answered with.
#[derive(Clone)]
struct App {
    orders: ChannelSender<Order>,
    job: JobHandle,
    totals: Totals,
    metrics: PrometheusHandle,
}

fn topology(t: &Topology, orders: &ChannelSource<Order>, totals: &ChannelSink<Total>) -> Result<(), BoxError> {
    t.source("orders", orders.clone())
        .key_by(|order| &order.user)
        .map_with_state("totals", |total: &mut u64, order| {
            *total += order.cents;
            (order.user, *total)
        })
        .sink("results", totals.clone());
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let flags = Flags::parse();
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let (orders, source) = Channel::read(100_000);
    let (sink, mut results) = Channel::write::<Total>(100_000);
    let job = Job::new("embedded", move |t| topology(t, &source, &sink)).data_dir(flags.data_dir);
    let job = job.checkpoint_interval(Duration::from_secs(flags.checkpoint_seconds)).start().await?;
    let totals = Totals::default();
    let app = App { orders: orders.clone(), job: job.clone(), totals: totals.clone(), metrics };
    let receive = tokio::spawn(async move {
        while let Some((user, total)) = results.recv().await {
            totals.lock().unwrap_or_else(PoisonError::into_inner).insert(user, total);
        }
    });
    let router = Router::new()
        .route("/orders", post(order))
        .route("/checkpoint", post(checkpoint))
        .route("/totals/{user}", get(total))
        .route("/status", get(async |Service(app): Service<App>| Json::<JobStatus>(app.job.status())))
        .route("/metrics", get(async |Service(app): Service<App>| app.metrics.render()))
        .with_state(app);
    let listener = tokio::net::TcpListener::bind(flags.listen).await?;
    println!("listening on {}", listener.local_addr()?);
    axum::serve(listener, router).with_graceful_shutdown(asked_to_end(job.clone())).await?;
    // what was accepted and is not read yet would not be in the last checkpoint
    let done = orders.checkpoint(&job).await.and(job.stop().await);
    receive.await?;
    Ok(done?)
}

/// Until SIGTERM, or until the job has ended by itself.
async fn asked_to_end(job: JobHandle) {
    use tokio::signal::unix::{SignalKind, signal};
    if let Ok(mut terminated) = signal(SignalKind::terminate()) {
        tokio::select! { _ = terminated.recv() => {}, _ = job.wait() => {} }
    }
}

type Failure = (StatusCode, String);
fn unavailable(error: impl ToString) -> Failure {
    (StatusCode::SERVICE_UNAVAILABLE, error.to_string())
}

/// Accepted, and durable after the next checkpoint.
async fn order(Service(app): Service<App>, Json(order): Json<Order>) -> Result<StatusCode, Failure> {
    app.orders.send(order).await.map_err(unavailable)?;
    Ok(StatusCode::ACCEPTED)
}

/// Answers when all that was accepted before is durable.
async fn checkpoint(Service(app): Service<App>) -> Result<Json<u64>, Failure> {
    app.orders.checkpoint(&app.job).await.map(Json).map_err(unavailable)
}

async fn total(Service(app): Service<App>, Path(user): Path<String>) -> Result<Json<u64>, StatusCode> {
    let total = app.totals.lock().unwrap_or_else(PoisonError::into_inner).get(&user).copied();
    total.map(Json).ok_or(StatusCode::NOT_FOUND)
}
