use std::sync::{Arc, Mutex};
use std::time::Duration;

use assay_runtime::{Phase, Runtime, RuntimeError};
use tokio::sync::oneshot;

type Log = Arc<Mutex<Vec<&'static str>>>;

/// A service that ends when its phase is stopped, and writes that down.
fn obedient(runtime: &mut Runtime, phase: Phase, name: &'static str, log: &Log) {
    let (token, log) = (runtime.token(phase), Arc::clone(log));
    runtime.spawn(phase, name, async move {
        token.cancelled().await;
        log.lock().unwrap().push(name);
        Ok(())
    });
}

#[tokio::test]
async fn phases_stop_in_order_and_each_is_waited_for() {
    let log = Log::default();
    let mut runtime = Runtime::new("test");
    // Registered in the wrong order on purpose.
    obedient(&mut runtime, Phase::Output, "output", &log);
    let (token, slow) = (runtime.token(Phase::Work), Arc::clone(&log));
    runtime.spawn(Phase::Work, "work", async move {
        token.cancelled().await;
        // Obligations take their time; the output must still be there.
        tokio::time::sleep(Duration::from_millis(50)).await;
        slow.lock().unwrap().push("work");
        Ok(())
    });
    obedient(&mut runtime, Phase::Intake, "intake", &log);
    runtime.run(std::future::ready(())).await.unwrap();
    assert_eq!(*log.lock().unwrap(), ["intake", "work", "output"]);
}

#[tokio::test]
async fn a_failing_service_stops_the_rest_and_is_named() {
    let log = Log::default();
    let mut runtime = Runtime::new("miner-1");
    obedient(&mut runtime, Phase::Intake, "intake", &log);
    obedient(&mut runtime, Phase::Output, "output", &log);
    runtime.spawn(Phase::Work, "link", async { Err("connection refused".into()) });
    let error = runtime.run(std::future::pending()).await.unwrap_err();
    assert!(matches!(&error, RuntimeError::Service { service: "link", .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.contains("miner-1") && text.contains("link") && text.contains("refused"),
        "{text}"
    );
    assert_eq!(*log.lock().unwrap(), ["intake", "output"]);
}

#[tokio::test]
async fn a_panic_is_an_error_and_not_a_hang() {
    let log = Log::default();
    let mut runtime = Runtime::new("test");
    obedient(&mut runtime, Phase::Output, "output", &log);
    runtime.spawn(Phase::Work, "fragile", async { panic!("index {} is out of bounds", 7) });
    let error = runtime.run(std::future::pending()).await.unwrap_err();
    let RuntimeError::Panicked { service, message, .. } = &error else { panic!("{error}") };
    assert_eq!((*service, message.as_str()), ("fragile", "index 7 is out of bounds"));
    assert_eq!(*log.lock().unwrap(), ["output"]);
}

#[tokio::test]
async fn an_early_end_is_an_error_but_a_job_may_end() {
    let mut runtime = Runtime::new("test");
    let (done, finished) = oneshot::channel();
    runtime.spawn_job(Phase::Work, "register", async move {
        done.send(()).unwrap();
        Ok(())
    });
    runtime.run(async { finished.await.unwrap() }).await.unwrap();

    let mut runtime = Runtime::new("test");
    runtime.spawn(Phase::Work, "listener", async { Ok(()) });
    let error = runtime.run(std::future::pending()).await.unwrap_err();
    assert!(matches!(error, RuntimeError::EndedEarly { service: "listener", .. }));
}

#[tokio::test]
async fn what_does_not_stop_is_ended_and_named() {
    let log = Log::default();
    let mut runtime = Runtime::new("test").with_grace(Phase::Work, Duration::from_millis(20));
    runtime.spawn(Phase::Work, "stubborn", std::future::pending());
    obedient(&mut runtime, Phase::Output, "output", &log);
    let error = runtime.run(std::future::ready(())).await.unwrap_err();
    let RuntimeError::StopTimeout { phase, services, .. } = &error else { panic!("{error}") };
    assert_eq!((*phase, services.as_str()), ("work", "stubborn"));
    // The output is stopped all the same.
    assert_eq!(*log.lock().unwrap(), ["output"]);
}

#[tokio::test]
async fn a_failure_while_stopping_is_reported() {
    let mut runtime = Runtime::new("test");
    let token = runtime.token(Phase::Output);
    runtime.spawn(Phase::Output, "database", async move {
        token.cancelled().await;
        Err("disk full".into())
    });
    let error = runtime.run(std::future::ready(())).await.unwrap_err();
    assert!(matches!(error, RuntimeError::Service { service: "database", .. }));
}

#[tokio::test]
async fn a_running_agent_is_stopped_or_killed_by_its_handle() {
    let log = Log::default();
    let mut runtime = Runtime::new("test");
    obedient(&mut runtime, Phase::Work, "work", &log);
    runtime.start().stop().await.unwrap();
    assert_eq!(*log.lock().unwrap(), ["work"]);

    // A service that owns a value: killing the agent drops it without asking.
    let (alive, gone) = oneshot::channel::<()>();
    let mut runtime = Runtime::new("test");
    obedient(&mut runtime, Phase::Work, "work", &log);
    runtime.spawn(Phase::Work, "owner", async move {
        let _alive = alive;
        std::future::pending().await
    });
    let mut running = runtime.start();
    running.kill();
    assert!(matches!(running.wait().await, Err(RuntimeError::Killed { .. })));
    assert!(gone.await.is_err());
    assert_eq!(*log.lock().unwrap(), ["work"]);
}
