//! Serves an order: its tasks side by side, their answers as one response or as a stream.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use axum::{
    Json,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{
    StreamExt,
    future::try_join_all,
    stream::{self, BoxStream, SelectAll},
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::{
    error::{ApiError, name_tasks},
    wording::{Answer, Head, Order, Said, Wording},
};
use crate::{
    clock::now_s,
    config::{HEADERS_WITHIN, KEEP_ALIVE},
    keys::Bill,
    tasks::{
        dispatch::Dispatcher,
        running::{Piece, Running},
    },
};

/// What comes next of which answer.
type Next = (usize, Result<Piece, ApiError>);

/// An order that is served. Dropped early, its tasks are cancelled.
pub struct Answering {
    pieces: SelectAll<BoxStream<'static, Next>>,
    head: Head,
    wording: Box<dyn Wording>,
    /// Events that are due before anything else.
    due: VecDeque<Said>,
    /// Answers that are not complete.
    open: usize,
    bill: Option<Bill>,
}

impl Answering {
    /// Begins the order's tasks.
    ///
    /// # Errors
    /// What stands in the way of one of them; the others are cancelled.
    async fn begin(dispatcher: &Arc<Dispatcher>, order: Order) -> Result<Self, ApiError> {
        let Order { asks, wording, bill, .. } = order;
        let running = try_join_all(asks.iter().map(|ask| dispatcher.begin(ask))).await?;
        let head = Head {
            tasks: running.iter().map(Running::task).collect(),
            created_s: now_s(),
            model: asks.first().map(|ask| ask.model.name.clone()).unwrap_or_default(),
            prompt_tokens: running.iter().map(Running::prompt_tokens).fold(0, u32::saturating_add),
        };
        let open = running.len();
        let due = VecDeque::new();
        let pieces = running.into_iter().enumerate().map(|(i, running)| pieces(i, running));
        Ok(Self { pieces: pieces.collect(), head, wording, due, open, bill })
    }

    /// Begins the order's tasks, whose answers are told event by event.
    ///
    /// # Errors
    /// What stands in the way of one of them; the others are cancelled.
    pub async fn stream(dispatcher: &Arc<Dispatcher>, order: Order) -> Result<Self, ApiError> {
        let mut answering = Self::begin(dispatcher, order).await?;
        answering.due.extend(answering.wording.begin(&answering.head));
        Ok(answering)
    }

    /// Waits for the first piece, and keeps it: a node that fails at once fails the request, not the stream.
    async fn first(&mut self) -> Result<(), ApiError> {
        let Ok(Some((answer, piece))) = timeout(HEADERS_WITHIN, self.piece()).await else {
            return Ok(());
        };
        self.word(answer, Ok(piece?));
        Ok(())
    }

    /// The next piece of any answer. A key that is revoked or expires gets no more of them.
    async fn piece(&mut self) -> Option<Next> {
        let Some(bill) = &mut self.bill else { return self.pieces.next().await };
        if self.pieces.is_empty() {
            return None;
        }
        let next = tokio::select! {
            biased;
            error = bill.key_ended() => return Some((0, Err(error))),
            next = self.pieces.next() => next?,
        };
        if let (answer, Ok(Piece::End(finish, _))) = &next {
            bill.ended(*answer, finish);
        }
        Some(next)
    }

    /// The next event; `None` after the last.
    pub async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(said) = self.due.pop_front() {
                return Some(said);
            }
            let (answer, piece) = self.piece().await?;
            self.word(answer, piece);
        }
    }

    fn word(&mut self, answer: usize, piece: Result<Piece, ApiError>) {
        let (wording, head) = (&mut self.wording, &self.head);
        match piece {
            Ok(Piece::Text(delta)) => self.due.extend(wording.text(head, answer, &delta)),
            Ok(Piece::End(finish, rest)) => {
                self.due.extend(wording.end(head, answer, &finish, &rest));
                self.open = self.open.saturating_sub(1);
                if self.open == 0 {
                    self.due.extend(wording.over(head));
                }
            }
            Err(error) => {
                self.due.extend(wording.failed(head, &error));
                // Nothing comes after it: what still runs is cancelled.
                self.pieces.clear();
            }
        }
    }

    /// Waits for all answers.
    async fn whole(mut self) -> Result<Response, ApiError> {
        let mut parts = vec![(String::new(), Vec::new(), None); self.open];
        while let Some((answer, piece)) = self.piece().await {
            let piece = piece?;
            let Some((text, logprobs, finish)) = parts.get_mut(answer) else { continue };
            match piece {
                Piece::Text(delta) => {
                    text.push_str(&delta.text);
                    logprobs.extend(delta.logprobs);
                }
                Piece::End(end, stated) => {
                    logprobs.extend(stated);
                    *finish = Some(end);
                }
            }
        }
        let answers: Vec<Answer> = parts
            .into_iter()
            .filter_map(|(text, logprobs, finish)| Some(Answer { text, logprobs, finish: finish? }))
            .collect();
        Ok(Json(self.wording.whole(&self.head, &answers)).into_response())
    }
}

/// All pieces of one answer, the last of which is its end or an error.
fn pieces(answer: usize, running: Running) -> BoxStream<'static, Next> {
    stream::unfold(Some(running), move |running| async move {
        let mut running = running?;
        let piece = running.next().await;
        let goes_on = matches!(piece, Ok(Piece::Text(..)));
        Some(((answer, piece), goes_on.then_some(running)))
    })
    .boxed()
}

/// Serves an order over HTTP; `permit` is held until its answer is over.
///
/// # Errors
/// Whatever stands in the way, before the headers are out.
pub async fn serve(
    dispatcher: &Arc<Dispatcher>,
    order: Order,
    permit: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let (mut response, tasks) = if order.stream {
        let mut answering = Answering::stream(dispatcher, order).await?;
        let tasks = answering.head.tasks.clone();
        answering.first().await?;
        (events(answering, permit), tasks)
    } else {
        let answering = Answering::begin(dispatcher, order).await?;
        let tasks = answering.head.tasks.clone();
        (answering.whole().await?, tasks)
    };
    name_tasks(&mut response, &tasks);
    Ok(response)
}

fn events(answering: Answering, permit: OwnedSemaphorePermit) -> Response {
    let events = stream::unfold((answering, permit), |(mut answering, permit)| async move {
        let Said { name, data } = answering.next().await?;
        let event = name.into_iter().fold(Event::default(), Event::event).data(data);
        Some((Ok::<_, Infallible>(event), (answering, permit)))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}
