//! `contracts/test/vectors/commitments.json` against `assay-types`; the Solidity tests read the same file.

use alloy::{
    primitives::{Address, B256},
    sol_types::SolStruct,
};
use assay_types::{
    CommitScope, Decline, EndReason, Lane, NodeId, Nonce, NumericClass, Precommit, ProofSeal,
    SeedInput, SessionId, Signed, StreamHash, TaskRequest, TokenSeal, commitment, domain,
    prompt_hash, seed_f, seed_g, task_id,
};
use serde::Deserialize;

use crate::anvil::repository;

#[derive(Deserialize)]
struct Vectors {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    name: String,
    chain_id: String,
    queue: Address,
    session_id: String,
    lane: u32,
    nonce: String,
    node_id: u32,
    prompt_ids: Vec<u32>,
    output_ids: Vec<u32>,
    beacon: B256,
    request_digest: B256,
    max_prompt: u32,
    max_output: u32,
    fee_cap: String,
    deadline: String,
    seed_round: String,
    redundancy: u8,
    attempts: u8,
    dispatch: u8,
    callback_gas: u32,
    output_digest: B256,
    prompt_tokens: u32,
    output_tokens: u32,
    numeric_class: B256,
    end_reason: u8,
    salt: B256,
    root: B256,
    proof_salt: B256,
    task_id: B256,
    prompt_hash: B256,
    seed_g: B256,
    seed_f: B256,
    h1: B256,
    h2: B256,
    commitment: B256,
    stream_hash: B256,
    domain_separator: B256,
    struct_hash: B256,
    digest: B256,
    precommit_hash: B256,
    precommit_digest: B256,
    decline_hash: B256,
    decline_digest: B256,
}

fn check(case: &Case) {
    let name = &case.name;
    let chain_id = case.chain_id.parse().unwrap();
    let (session, nonce) = (case.session_id.parse().unwrap(), case.nonce.parse().unwrap());
    let task = task_id(case.queue, SessionId(session), Lane(case.lane), Nonce(nonce));
    assert_eq!(task.0, case.task_id, "{name}: taskId");
    assert_eq!(prompt_hash(&case.prompt_ids), case.prompt_hash, "{name}: promptHash");
    let g = seed_g(&SeedInput {
        chain_id,
        queue: case.queue,
        task,
        prompt_hash: case.prompt_hash,
        node: NodeId(case.node_id),
        beacon: case.beacon,
    });
    assert_eq!(g, case.seed_g, "{name}: seedG");
    assert_eq!(seed_f(g), case.seed_f, "{name}: seedF");

    let scope = CommitScope { chain_id, queue: case.queue, task, node: NodeId(case.node_id) };
    let h1 = TokenSeal {
        output_digest: case.output_digest,
        prompt_hash: case.prompt_hash,
        prompt_tokens: case.prompt_tokens,
        output_tokens: case.output_tokens,
        class: NumericClass(case.numeric_class),
        end_reason: EndReason::try_from(case.end_reason).unwrap(),
        salt: case.salt,
    }
    .hash(&scope);
    assert_eq!(h1, case.h1, "{name}: H1");
    let h2 = ProofSeal { root: case.root, salt: case.proof_salt }.hash(&scope);
    assert_eq!(h2, case.h2, "{name}: H2");
    assert_eq!(commitment(h1, h2), case.commitment, "{name}: commitment");
    assert_eq!(StreamHash::of(task, &case.output_ids), case.stream_hash, "{name}: streamHash");

    let request = TaskRequest {
        sessionId: session,
        lane: case.lane,
        nonce,
        requestDigest: case.request_digest,
        maxPrompt: case.max_prompt,
        maxOutput: case.max_output,
        feeCap: case.fee_cap.parse().unwrap(),
        deadline: case.deadline.parse().unwrap(),
        nodeId: case.node_id,
        seedRound: case.seed_round.parse().unwrap(),
        redundancy: case.redundancy,
        attempts: case.attempts,
        dispatch: case.dispatch,
        callbackGas: case.callback_gas,
    };
    assert_eq!(domain(chain_id, case.queue).separator(), case.domain_separator, "{name}: domain");
    assert_eq!(request.eip712_hash_struct(), case.struct_hash, "{name}: struct hash");
    assert_eq!(request.signing_hash(chain_id, case.queue), case.digest, "{name}: digest");

    let precommit = Precommit::new(&scope, case.commitment);
    assert_eq!(precommit.eip712_hash_struct(), case.precommit_hash, "{name}: precommit");
    let digest = precommit.signing_hash(chain_id, case.queue);
    assert_eq!(digest, case.precommit_digest, "{name}: precommit digest");
    let decline = Decline { taskId: task.0, nodeId: case.node_id };
    assert_eq!(decline.eip712_hash_struct(), case.decline_hash, "{name}: decline");
    let digest = decline.signing_hash(chain_id, case.queue);
    assert_eq!(digest, case.decline_digest, "{name}: decline digest");
}

#[test]
fn hashes_of_assay_types_are_those_of_the_vectors() {
    let text =
        std::fs::read_to_string(repository("contracts/test/vectors/commitments.json")).unwrap();
    let vectors: Vectors = serde_json::from_str(&text).unwrap();
    assert!(vectors.cases.len() >= 4);
    vectors.cases.iter().for_each(check);
}
