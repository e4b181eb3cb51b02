use super::*;
use assay_types::B256;

const MINER: NodeId = NodeId(3);

fn task(number: u8) -> TaskId {
    TaskId(B256::repeat_byte(number))
}

fn due(duty: Duty, until_s: u64) -> Due {
    Due { duty, until_s, version: B256::repeat_byte(1), ahead: 0 }
}

fn tried(actions: &[Action]) -> Vec<(TaskId, u32)> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Try { key, attempt, .. } => Some((key.0, *attempt)),
            Action::Missed { .. } => None,
        })
        .collect()
}

#[test]
fn a_duty_is_tried_until_an_event_tells_that_it_is_done() {
    let mut state = State::new(1, 0);
    let (key, seal) = ((task(1), MINER), due(Duty::Seal, 100));
    state.on(Input::Stands(key, Some(seal)));
    assert_eq!(state.tick(10), [Action::Try { key, due: seal, attempt: 0, waited_s: 10 }]);
    assert_eq!(state.tick(11), [], "one try at once");
    // A node that was drawn waits for a block.
    state.on(Input::Tried(key, seal, Outcome::Waiting));
    assert_eq!(tried(&state.tick(12)), [(task(1), 0)]);
    // What the contract refused gets another transaction.
    state.on(Input::Tried(key, seal, Outcome::Refused));
    assert_eq!(state.tick(12), []);
    assert_eq!(tried(&state.tick(13)), [(task(1), 1)]);
    state.on(Input::Tried(key, seal, Outcome::Failed));
    assert_eq!(state.tick(14), []);
    assert_eq!(tried(&state.tick(15)), [(task(1), 1)]);
    // Mined: the event is on its way, or was taken back with its block.
    state.on(Input::Tried(key, seal, Outcome::Sent));
    assert_eq!(state.tick(34), []);
    assert_eq!(tried(&state.tick(35)), [(task(1), 1)]);
    state.on(Input::Stands(key, None));
    state.on(Input::Tried(key, seal, Outcome::Sent));
    assert_eq!((state.tick(60), state.open()), (vec![], 0));
    assert!(state.miners_of(task(1)).is_empty());
}

#[test]
fn how_long_a_duty_was_due_is_counted_from_its_standing() {
    // What an earlier life left was due for no time of this one.
    let mut later = State::new(1, 90);
    later.on(Input::Stands((task(1), MINER), Some(due(Duty::Seal, 100))));
    assert!(matches!(later.tick(91)[..], [Action::Try { waited_s: 1, .. }]));
    let waited = |actions: Vec<Action>| match actions[..] {
        [Action::Try { waited_s, .. }] => waited_s,
        _ => panic!("{actions:?}"),
    };
    let mut state = State::new(1, 0);
    let (key, seal) = ((task(1), MINER), due(Duty::Seal, 100));
    state.tick(10);
    state.on(Input::Stands(key, Some(seal)));
    assert_eq!(waited(state.tick(13)), 3);
    state.on(Input::Tried(key, seal, Outcome::Waiting));
    // Told once more, and the same.
    state.on(Input::Stands(key, Some(seal)));
    assert_eq!(waited(state.tick(20)), 10);
    let other = Due { version: B256::repeat_byte(2), ..seal };
    state.on(Input::Stands(key, Some(other)));
    state.on(Input::Tried(key, seal, Outcome::Waiting));
    assert_eq!(waited(state.tick(21)), 1);
}

#[test]
fn an_audit_that_moves_on_is_begun_anew() {
    let mut state = State::new(1, 0);
    let (key, first) = ((task(1), MINER), due(Duty::Testify(2), 100));
    state.on(Input::Stands(key, Some(first)));
    state.tick(10);
    // Another member was faster while ours was under way.
    let second = Due { version: B256::repeat_byte(2), ..first };
    state.on(Input::Stands(key, Some(second)));
    assert_eq!(state.tick(10), []);
    state.on(Input::Tried(key, first, Outcome::Refused));
    assert_eq!(state.tick(10), [Action::Try { key, due: second, attempt: 0, waited_s: 0 }]);
}

#[test]
fn the_model_examines_no_more_than_it_may_and_the_most_urgent_first() {
    let mut state = State::new(2, 0);
    for number in 1..=4 {
        let until_s = 100 - u64::from(number);
        state.on(Input::Stands((task(number), MINER), Some(due(Duty::Seal, until_s))));
    }
    state.on(Input::Stands((task(9), MINER), Some(due(Duty::Open, 99))));
    let first: Vec<TaskId> = tried(&state.tick(10)).into_iter().map(|(task, _)| task).collect();
    // Opening one's own proof needs no model and waits for nobody.
    assert_eq!(first, [task(4), task(3), task(9)]);
    state.on(Input::Tried((task(4), MINER), due(Duty::Seal, 96), Outcome::Sent));
    assert_eq!(tried(&state.tick(11)), [(task(2), 0)]);
}

#[test]
fn what_came_too_late_is_said_once_and_given_up() {
    let mut state = State::new(1, 0);
    let (key, seal) = ((task(1), MINER), due(Duty::Seal, 100));
    state.on(Input::Stands(key, Some(seal)));
    assert_eq!(state.tick(101), [Action::Missed { key, due: seal }]);
    assert_eq!((state.tick(102), state.open()), (vec![], 0));
    // Not while it is under way: it may just get through.
    state.on(Input::Stands(key, Some(seal)));
    assert_eq!(tried(&state.tick(100)).len(), 1);
    assert_eq!(state.tick(101), []);
    state.on(Input::Tried(key, seal, Outcome::Failed));
    assert_eq!(state.tick(102), [Action::Missed { key, due: seal }]);
}

#[test]
fn what_cannot_be_done_is_left_and_pay_has_time() {
    let mut state = State::new(1, 0);
    let (key, reveal) = ((task(1), MINER), due(Duty::Reveal, 100));
    state.on(Input::Stands(key, Some(reveal)));
    state.tick(10);
    state.on(Input::Tried(key, reveal, Outcome::Impossible));
    assert_eq!((state.tick(50), state.open()), (vec![], 0));

    let (key, collect) = ((task(2), MINER), due(Duty::Collect, u64::MAX));
    state.on(Input::Stands(key, Some(collect)));
    let mut now_s = 10;
    for pause_s in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600] {
        assert_eq!(tried(&state.tick(now_s)).len(), 1);
        state.on(Input::Tried(key, collect, Outcome::Refused));
        assert_eq!(state.tick(now_s + pause_s - 1), []);
        now_s += pause_s;
    }
}
