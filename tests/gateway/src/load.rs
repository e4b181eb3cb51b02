//! What is measured: answers one after the other, as many as there can be, and streams side by side.

use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use futures::future::join_all;
use serde::Serialize;
use tokio::time::timeout;

use crate::{
    answer::{self, WORD},
    client::{Connection, get, post},
};

const PATH: &str = "/v1/chat/completions";
/// Tokens of a stream that is not read to its end.
const LONG_STREAM: usize = 1000;
/// Time for a hang-up to arrive, before the next stream begins.
const BETWEEN_HANG_UPS: Duration = Duration::from_millis(200);
/// A stream that takes so much longer than its pace is lost.
const STREAM_GRACE: Duration = Duration::from_secs(30);

/// Quantiles of some times.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Times {
    /// Half are shorter.
    pub p50_ms: f64,
    /// 99 of a hundred are shorter.
    pub p99_ms: f64,
    /// How many.
    pub count: usize,
}

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |share: f64| {
            let index = (times.len().saturating_sub(1) as f64 * share).round() as usize;
            times.get(index).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
        };
        Self { p50_ms: at(0.5), p99_ms: at(0.99), count: times.len() }
    }
}

/// Whole answers at full speed.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Rate {
    /// Answers a second.
    pub per_s: f64,
    /// Answers.
    pub count: usize,
    /// Anything but an answer.
    pub failed: usize,
    /// How long one took.
    pub times: Times,
}

/// Streams side by side.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Streams {
    /// Tokens that did not come.
    pub lost: usize,
    /// Tokens that came.
    pub tokens: usize,
    /// From the request to the first token.
    pub first: Times,
    /// From one token to the next.
    pub gaps: Times,
}

fn now<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

/// Waits for the first answer.
///
/// # Errors
/// If none comes within `patience`.
pub fn first_answer(address: SocketAddr, patience: Duration) -> Result<()> {
    let request = post(PATH, &answer::whole());
    let begun = Instant::now();
    now(async {
        loop {
            let asked = async { Connection::open(address).await?.ask(&request).await };
            match asked.await {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > patience => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    })
}

/// Waits until what is served at a path has some text.
///
/// # Errors
/// If it does not within `patience`.
pub fn until(address: SocketAddr, path: &str, text: &str, patience: Duration) -> Result<()> {
    let request = get(path);
    let begun = Instant::now();
    now(async {
        while begun.elapsed() < patience {
            let page = Connection::open(address).await?.ask(&request).await?;
            if String::from_utf8_lossy(&page).contains(text) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        anyhow::bail!("{path} never says {text:?}")
    })
}

/// Answers one after the other on one connection.
///
/// # Errors
/// If one is refused.
pub fn one_by_one(address: SocketAddr, count: usize, at_most: Duration) -> Result<Times> {
    let request = post(PATH, &answer::whole());
    let begun = Instant::now();
    now(async {
        let mut connection = Connection::open(address).await?;
        let mut times = Vec::with_capacity(count);
        while times.len() < count && begun.elapsed() < at_most {
            let sent = Instant::now();
            connection.ask(&request).await?;
            times.push(sent.elapsed());
        }
        Ok(Times::of(times))
    })
}

/// Answers on some connections, each one after the other, as fast as they come.
///
/// # Errors
/// If nobody listens.
pub fn at_full_speed(address: SocketAddr, connections: usize, time: Duration) -> Result<Rate> {
    steadily(address, connections, time, Duration::ZERO)
}

/// The same, with a pause after each answer.
///
/// # Errors
/// If nobody listens.
pub fn steadily(
    address: SocketAddr,
    connections: usize,
    time: Duration,
    pause: Duration,
) -> Result<Rate> {
    let request = post(PATH, &answer::whole());
    let begun = Instant::now();
    let one = || async {
        let (mut times, mut failed) = (Vec::new(), 0);
        let mut connection = Connection::open(address).await?;
        while begun.elapsed() < time {
            let sent = Instant::now();
            match connection.ask(&request).await {
                Ok(_) => {
                    times.push(sent.elapsed());
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
                Err(_) => {
                    failed += 1;
                    connection = Connection::open(address).await?;
                }
            }
        }
        Ok::<_, anyhow::Error>((times, failed))
    };
    now(async {
        let (mut times, mut failed) = (Vec::new(), 0);
        for ended in join_all((0..connections).map(|_| one())).await {
            let (more, failures) = ended?;
            times.extend(more);
            failed += failures;
        }
        let count = times.len();
        let per_s = count as f64 / begun.elapsed().as_secs_f64();
        Ok(Rate { per_s, count, failed, times: Times::of(times) })
    })
}

/// Hangs up in the middle of streams, one after the other; when, unix microseconds.
///
/// # Errors
/// If a stream does not begin.
pub fn hang_up(address: SocketAddr, streams: usize) -> Result<Vec<u128>> {
    let request = post(PATH, &answer::stream(LONG_STREAM));
    now(async {
        let mut times = Vec::with_capacity(streams);
        for _ in 0..streams {
            let mut connection = Connection::open(address).await?;
            let (began, mut begins) = tokio::sync::oneshot::channel();
            let mut began = Some(began);
            let reading = connection.stream(&request, |lines| {
                if String::from_utf8_lossy(lines).contains(WORD)
                    && let Some(began) = began.take()
                {
                    let _ = began.send(());
                }
            });
            tokio::select! {
                ended = reading => ended?,
                _ = &mut begins => {}
            }
            times.push(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros());
            drop(connection);
            tokio::time::sleep(BETWEEN_HANG_UPS).await;
        }
        Ok(times)
    })
}

/// How long each of some events took, both in unix microseconds.
pub fn between(from: &[u128], to: &[u128]) -> Times {
    let micros = |micros: u128| Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
    Times::of(from.iter().zip(to).map(|(from, to)| micros(to.saturating_sub(*from))).collect())
}

/// Streams of `tokens` each, begun at once.
///
/// # Errors
/// Never: what is refused is lost.
pub fn side_by_side(address: SocketAddr, streams: usize, tokens: usize) -> Result<Streams> {
    let request = post(PATH, &answer::stream(tokens));
    let patience = answer::PACE * u32::try_from(tokens)? + STREAM_GRACE;
    let one = || async {
        let sent = Instant::now();
        let mut came: Vec<Instant> = Vec::with_capacity(tokens);
        let reading = async {
            let mut connection = Connection::open(address).await?;
            connection
                .stream(&request, |lines| {
                    let now = Instant::now();
                    let lines = String::from_utf8_lossy(lines);
                    came.extend(lines.matches(WORD).map(|_| now));
                })
                .await
        };
        let _ = timeout(patience, reading).await;
        (sent, came)
    };
    now(async {
        let (mut firsts, mut gaps, mut count) = (Vec::new(), Vec::new(), 0);
        for (sent, came) in join_all((0..streams).map(|_| one())).await {
            firsts.extend(came.first().map(|first| *first - sent));
            gaps.extend(came.windows(2).filter_map(|pair| match pair {
                [earlier, later] => Some(*later - *earlier),
                _ => None,
            }));
            count += came.len();
        }
        Ok(Streams {
            lost: (streams * tokens).saturating_sub(count),
            tokens: count,
            first: Times::of(firsts),
            gaps: Times::of(gaps),
        })
    })
}
