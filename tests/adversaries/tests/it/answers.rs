//! Tasks as their miner gets them, and what miners make of them.

use assay_engine::{Answered, Examination, examine};
use assay_proof::{Contrasts, Record, Sampler, Step, Tree, Width};
use assay_types::{
    Address, B256, BLOCK_VERSION, CommitScope, EndReason, NodeId, NumericClass, Prompt, ProofSeal,
    RequestBlock, ResultBlock, Sampling, SeedInput, StreamHash, TaskId, TokenSeal, keccak256,
    prompt_hash, seed_g,
};
use futures::executor::block_on;

use crate::{
    engine::{MODEL, Machine, class, prompt_ids, text},
    model::{END, Model, VOCABULARY},
};

pub const MAX_OUTPUT: u32 = 96;
pub const MAX_PROMPT: u32 = 64;
/// Hides what miners commit to. Everybody's, so that a test can copy it.
const SALT: B256 = B256::repeat_byte(0x5a);

/// A task on one node.
#[derive(Clone, Debug)]
pub struct Task {
    pub number: u32,
    pub scope: CommitScope,
    pub request: RequestBlock,
    /// The value that seeds it.
    pub beacon: B256,
}

impl Task {
    pub fn request(number: u32, sampling: Sampling) -> RequestBlock {
        RequestBlock {
            max_output: MAX_OUTPUT,
            max_prompt: MAX_PROMPT,
            prompt: Prompt::Text(format!("tell me about {number}")),
            salt: B256::ZERO,
            sampling,
            stop: Vec::new(),
            top_logprobs: None,
            version: BLOCK_VERSION,
        }
    }

    /// A task of no network.
    pub fn imagined(number: u32, sampling: Sampling) -> Self {
        let task = TaskId(keccak256(number.to_le_bytes()));
        let queue = Address::repeat_byte(9);
        let scope = CommitScope { chain_id: 31337, queue, task, node: NodeId(2) };
        let beacon = B256::repeat_byte(0xbe);
        Self { number, scope, request: Self::request(number, sampling), beacon }
    }

    pub fn prompt(&self) -> Vec<u32> {
        match &self.request.prompt {
            Prompt::Text(text) => prompt_ids(text),
            Prompt::Messages(_) => Vec::new(),
        }
    }

    pub fn seed(&self) -> B256 {
        let CommitScope { chain_id, queue, task, node } = self.scope;
        let prompt_hash = prompt_hash(&self.prompt());
        seed_g(&SeedInput { chain_id, queue, task, prompt_hash, node, beacon: self.beacon })
    }

    pub fn sampler(&self) -> Sampler {
        self.sampler_with(self.request.sampling, self.seed())
    }

    pub fn sampler_with(&self, sampling: Sampling, seed: B256) -> Sampler {
        Sampler::new(sampling, seed, VOCABULARY).unwrap()
    }

    /// What the arithmetic of a node is off by at this task.
    fn noise(&self, node: u32) -> B256 {
        keccak256([self.scope.task.0.as_slice(), &node.to_be_bytes()].concat())
    }

    /// The same task as another node would get it.
    pub fn of(&self, node: u32) -> Self {
        Self { scope: CommitScope { node: NodeId(node), ..self.scope }, ..self.clone() }
    }

    /// What a validator finds with a model of its own.
    pub fn examined(
        &self,
        node: u32,
        seal: &TokenSeal,
        block: Option<&ResultBlock>,
    ) -> Examination {
        let machine = Machine::new(self.noise(node));
        let answered = Answered {
            scope: self.scope,
            beacon: self.beacon,
            seal,
            request: &self.request,
            result: block,
            cancel_is_signed: false,
        };
        block_on(examine(&machine, &answered, Width::Four)).unwrap()
    }
}

/// Chooses tokens with `model` until the end.
pub fn decode(task: &Task, model: &Model, sampler: &mut Sampler, prompt: &[u32]) -> Vec<Step> {
    let mut run = model.run(prompt, task.noise(task.scope.node.0));
    let mut steps = Vec::new();
    while steps.len() < task.request.max_output as usize {
        let step = sampler.step(&run.logits()).unwrap();
        steps.push(step);
        if step.id == END {
            break;
        }
        run.feed(step.id);
    }
    steps
}

pub fn ids(steps: &[Step]) -> Vec<u32> {
    steps.iter().map(|step| step.id).collect()
}

/// What a miner does of which request and answer are demanded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDemand {
    /// Publishes both.
    #[default]
    Everything,
    /// Publishes another answer than it committed to.
    SomethingElse,
    /// Begins to.
    InPart,
    Nothing,
}

/// What a miner commits to, publishes, and does when it is audited.
#[derive(Clone, Debug)]
pub struct Submission {
    pub ids: Vec<u32>,
    pub contrasts: Vec<Contrasts>,
    pub text: String,
    pub end_reason: EndReason,
    /// The prompt that it says it was asked.
    pub prompt: Vec<u32>,
    /// The class that it says it computed in.
    pub class: NumericClass,
    /// H2, if it is not that of its own record.
    pub other_seal: Option<B256>,
    pub publishes_answer: bool,
    pub publishes_proof: bool,
    pub opens: bool,
    pub testifies: bool,
    pub on_demand: OnDemand,
    pub appeals: bool,
}

impl Submission {
    /// An answer as a miner would submit it that has nothing to hide but its tokens and contrasts.
    pub fn new(task: &Task, ids: Vec<u32>, contrasts: Vec<Contrasts>) -> Self {
        let ended = ids.last() == Some(&END);
        Self {
            text: text(&ids),
            end_reason: if ended { EndReason::Eos } else { EndReason::Max },
            ids,
            contrasts,
            prompt: task.prompt(),
            class: class(),
            other_seal: None,
            publishes_answer: true,
            publishes_proof: true,
            opens: true,
            testifies: true,
            on_demand: OnDemand::default(),
            appeals: false,
        }
    }

    pub fn honest(task: &Task) -> Self {
        Self::decoded(task, &MODEL)
    }

    /// Tokens and contrasts of these weights.
    pub fn decoded(task: &Task, model: &Model) -> Self {
        Self::of_steps(task, &decode(task, model, &mut task.sampler(), &task.prompt()))
    }

    pub fn of_steps(task: &Task, steps: &[Step]) -> Self {
        Self::new(task, ids(steps), steps.iter().map(|step| step.contrasts).collect())
    }

    /// Tokens from anywhere, recorded by a prefill through the right model.
    pub fn prefilled(task: &Task, ids: Vec<u32>) -> Self {
        let mut sampler = task.sampler();
        let mut run = MODEL.run(&task.prompt(), task.noise(task.scope.node.0));
        let contrasts = ids.iter().map(|id| {
            let contrasts = sampler.step(&run.logits()).unwrap().contrasts;
            run.feed(*id);
            contrasts
        });
        let contrasts = contrasts.collect();
        Self::new(task, ids, contrasts)
    }

    pub fn tokens(&self) -> u32 {
        self.ids.len() as u32
    }

    pub fn block(&self, task: &Task) -> ResultBlock {
        ResultBlock {
            cancellation: None,
            end_reason: self.end_reason,
            stream_hash: StreamHash::of(task.scope.task, &self.ids),
            ids: self.ids.clone(),
            salt: SALT,
            text: self.text.clone(),
            version: BLOCK_VERSION,
        }
    }

    /// Request and answer as they are published on demand.
    pub fn published(&self, task: &Task) -> (Vec<u8>, Vec<u8>) {
        let mut block = self.block(task);
        if self.on_demand == OnDemand::SomethingElse {
            block.text.push('!');
        }
        (task.request.encode().unwrap().0, block.encode().unwrap().0)
    }

    /// Whether nobody can read it, wherever one looks.
    pub fn is_lost(&self) -> bool {
        !self.publishes_answer && self.on_demand == OnDemand::SomethingElse
    }

    /// H1.
    pub fn seal(&self, task: &Task) -> TokenSeal {
        TokenSeal {
            output_digest: self.block(task).encode().unwrap().1,
            prompt_hash: prompt_hash(&self.prompt),
            prompt_tokens: self.prompt.len() as u32,
            output_tokens: self.tokens(),
            class: self.class,
            end_reason: self.end_reason,
            salt: SALT,
        }
    }

    pub fn record(&self) -> Record {
        Record::new(self.ids.clone(), self.contrasts.clone()).unwrap()
    }

    pub fn tree(&self) -> Tree {
        self.record().tree().unwrap()
    }

    /// What H2 would seal of its own record.
    pub fn proof(&self) -> ProofSeal {
        ProofSeal { root: self.tree().root(), salt: SALT }
    }

    /// H2 as committed.
    pub fn proof_seal(&self, task: &Task) -> B256 {
        self.other_seal.unwrap_or_else(|| self.proof().hash(&task.scope))
    }
}
