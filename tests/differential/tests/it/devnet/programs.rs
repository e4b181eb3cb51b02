//! Random programs for the EVM: most of them do something before they end.
//!
//! They use everything of Prague but what the chains differ in: BLOCKHASH and PREVRANDAO.

use alloy::primitives::{Address, U256};
use rand::Rng;
use rand::seq::IndexedRandom;
use rand_chacha::ChaCha8Rng;

/// How deep expressions and conditions are nested.
const DEPTH: u8 = 3;
/// Storage slots, and words of memory, that programs share: few, so that they meet.
pub const SLOTS: u8 = 6;

const ADD_TO_SIGNEXTEND: std::ops::RangeInclusive<u8> = 0x01..=0x0b;
const LT_TO_SAR: std::ops::RangeInclusive<u8> = 0x10..=0x1d;
const ADDMOD: u8 = 0x08;
const MULMOD: u8 = 0x09;
const EXP: u8 = 0x0a;
const ISZERO: u8 = 0x15;
const NOT: u8 = 0x19;
const KECCAK256: u8 = 0x20;
/// ADDRESS, ORIGIN, CALLER, CALLVALUE, CALLDATASIZE, CODESIZE, GASPRICE, RETURNDATASIZE, COINBASE,
/// TIMESTAMP, NUMBER, GASLIMIT, CHAINID, SELFBALANCE, BASEFEE, BLOBBASEFEE, PC, MSIZE, GAS.
const NULLARY: [u8; 19] = [
    0x30, 0x32, 0x33, 0x34, 0x36, 0x38, 0x3a, 0x3d, 0x41, 0x42, 0x43, 0x45, 0x46, 0x47, 0x48, 0x4a,
    0x58, 0x59, 0x5a,
];
/// BALANCE, EXTCODESIZE, EXTCODEHASH: of an address.
const OF_ADDRESS: [u8; 3] = [0x31, 0x3b, 0x3f];
const CALLDATALOAD: u8 = 0x35;
const CALLDATACOPY: u8 = 0x37;
const CODECOPY: u8 = 0x39;
const EXTCODECOPY: u8 = 0x3c;
const RETURNDATACOPY: u8 = 0x3e;
const BLOBHASH: u8 = 0x49;
const POP: u8 = 0x50;
const MLOAD: u8 = 0x51;
const MSTORE: u8 = 0x52;
const SLOAD: u8 = 0x54;
const SSTORE: u8 = 0x55;
const JUMPI: u8 = 0x57;
const JUMPDEST: u8 = 0x5b;
const TLOAD: u8 = 0x5c;
const TSTORE: u8 = 0x5d;
const MCOPY: u8 = 0x5e;
const PUSH0: u8 = 0x5f;
const LOG0: u8 = 0xa0;
const CREATE: u8 = 0xf0;
const CALL: u8 = 0xf1;
const CALLCODE: u8 = 0xf2;
const RETURN: u8 = 0xf3;
const DELEGATECALL: u8 = 0xf4;
const CREATE2: u8 = 0xf5;
const STATICCALL: u8 = 0xfa;
const REVERT: u8 = 0xfd;
const INVALID: u8 = 0xfe;
const SELFDESTRUCT: u8 = 0xff;

/// Writes programs that know some addresses.
pub struct Writer<'a> {
    pub random: &'a mut ChaCha8Rng,
    pub known: &'a [Address],
    code: Vec<u8>,
}

impl<'a> Writer<'a> {
    pub fn new(random: &'a mut ChaCha8Rng, known: &'a [Address]) -> Self {
        Self { random, known, code: Vec::new() }
    }

    /// Code of a contract.
    pub fn runtime(mut self) -> Vec<u8> {
        if self.random.random_bool(0.03) {
            // Anything at all, also what no compiler makes.
            return (0..self.random.random_range(1..60)).map(|_| self.random.random()).collect();
        }
        for _ in 0..self.random.random_range(2..16) {
            self.statement(DEPTH);
        }
        self.end();
        self.code
    }

    /// Code that runs something and then leaves a contract with code of its own.
    pub fn init(mut self) -> Vec<u8> {
        for _ in 0..self.random.random_range(0..4) {
            self.statement(1);
        }
        let runtime = Writer::new(self.random, self.known).runtime();
        // PUSH2 len, PUSH2 from, PUSH0, CODECOPY, PUSH2 len, PUSH0, RETURN
        let len = u16::try_from(runtime.len()).unwrap().to_be_bytes();
        let from = u16::try_from(self.code.len() + 13).unwrap().to_be_bytes();
        self.code.extend([0x61, len[0], len[1], 0x61, from[0], from[1], PUSH0, CODECOPY]);
        self.code.extend([0x61, len[0], len[1], PUSH0, RETURN]);
        self.code.extend(runtime);
        self.code
    }

    fn op(&mut self, op: u8) {
        self.code.push(op);
    }

    fn push(&mut self, value: U256) {
        let bytes = value.to_be_bytes_trimmed_vec();
        self.code.push(PUSH0 + u8::try_from(bytes.len()).unwrap());
        self.code.extend(bytes);
    }

    fn small(&mut self, below: u8) {
        let value = self.random.random_range(0..below);
        self.push(U256::from(value));
    }

    fn offset(&mut self) {
        let word = self.random.random_range(0..u16::from(SLOTS)) * 32;
        self.push(U256::from(word));
    }

    fn address(&mut self) {
        let address = *self.known.choose(self.random).unwrap();
        self.push(U256::from_be_slice(address.as_slice()));
    }

    /// Leaves one word on the stack.
    fn value(&mut self, depth: u8) {
        match self.random.random_range(0..if depth == 0 { 9 } else { 13 }) {
            0 => self.small(4),
            1 => {
                let value = U256::from_be_bytes(self.random.random::<[u8; 32]>());
                let shift = self.random.random_range(0..256);
                self.push(value >> shift);
            }
            2 => self.unary(CALLDATALOAD),
            3 => {
                self.small(SLOTS);
                self.op(SLOAD);
            }
            4 => {
                self.small(SLOTS);
                self.op(TLOAD);
            }
            5 | 6 => {
                let op = *NULLARY.choose(self.random).unwrap();
                self.op(op);
            }
            7 => {
                self.address();
                let op = *OF_ADDRESS.choose(self.random).unwrap();
                self.op(op);
            }
            8 => self.unary(MLOAD),
            9 => {
                self.value(depth - 1);
                let op = *[ISZERO, NOT, BLOBHASH].choose(self.random).unwrap();
                self.op(op);
            }
            10 => {
                self.small(96);
                self.offset();
                self.op(KECCAK256);
            }
            _ => self.binary(depth - 1),
        }
    }

    fn unary(&mut self, op: u8) {
        self.offset();
        self.op(op);
    }

    fn binary(&mut self, depth: u8) {
        let range = if self.random.random() { ADD_TO_SIGNEXTEND } else { LT_TO_SAR };
        let op = self.random.random_range(range);
        if op == EXP {
            self.small(40);
        } else {
            self.value(depth);
        }
        if op == ADDMOD || op == MULMOD {
            self.value(depth);
        }
        if op != ISZERO && op != NOT {
            self.value(depth);
        }
        self.op(op);
    }

    fn statement(&mut self, depth: u8) {
        match self.random.random_range(0..12) {
            0..=2 => {
                self.value(depth);
                self.small(SLOTS);
                let op = if self.random.random_bool(0.9) { SSTORE } else { TSTORE };
                self.op(op);
            }
            3 | 4 => {
                self.value(depth);
                self.offset();
                self.op(MSTORE);
            }
            5 => {
                let topics = self.random.random_range(0..=4);
                for _ in 0..topics {
                    self.value(1);
                }
                self.small(100);
                self.offset();
                self.op(LOG0 + topics);
            }
            6..=8 => self.call(),
            9 => self.create(),
            10 => self.copy(),
            _ if depth > 0 => self.condition(depth - 1),
            _ => {}
        }
    }

    fn call(&mut self) {
        let op = *[CALL, CALL, CALLCODE, DELEGATECALL, STATICCALL].choose(self.random).unwrap();
        // Size and place of what comes back, and of what is handed over.
        for _ in 0..2 {
            self.small(100);
            self.offset();
        }
        if op == CALL || op == CALLCODE {
            self.small(3);
        }
        self.address();
        if self.random.random_bool(0.5) {
            self.op(0x5a);
        } else {
            let gas = self.random.random_range(0..60_000_u64);
            self.push(U256::from(gas));
        }
        self.op(op);
        self.keep();
    }

    /// Stores the top of the stack, so that it can be seen, or drops it.
    fn keep(&mut self) {
        if self.random.random() {
            self.small(SLOTS);
            self.op(SSTORE);
        } else {
            self.op(POP);
        }
    }

    fn create(&mut self) {
        // What a creation leaves: nothing, one byte of code, code that may not be, or a revert.
        let init: [&[u8]; 4] = [
            &[0x00],
            &[0x60, 0x01, PUSH0, RETURN],
            &[0x60, 0xef, PUSH0, 0x53, 0x60, 0x01, PUSH0, RETURN],
            &[0x60, 0x20, PUSH0, REVERT],
        ];
        let init = *init.choose(self.random).unwrap();
        let mut word = [0; 32];
        word[..init.len()].copy_from_slice(init);
        self.push(U256::from_be_bytes(word));
        self.op(PUSH0);
        self.op(MSTORE);
        let op = if self.random.random() { CREATE } else { CREATE2 };
        if op == CREATE2 {
            self.small(3);
        }
        self.push(U256::from(init.len()));
        self.op(PUSH0);
        self.small(2);
        self.op(op);
        self.keep();
    }

    fn copy(&mut self) {
        match self.random.random_range(0..5) {
            0 => {
                self.op(0x3d);
                self.op(PUSH0);
                self.offset();
                self.op(RETURNDATACOPY);
            }
            1 => {
                self.small(64);
                self.small(64);
                self.offset();
                self.address();
                self.op(EXTCODECOPY);
            }
            n => {
                self.small(64);
                self.small(64);
                self.offset();
                self.op(match n {
                    2 => CALLDATACOPY,
                    3 => CODECOPY,
                    _ => MCOPY,
                });
            }
        }
    }

    fn condition(&mut self, depth: u8) {
        self.value(1);
        let at = self.code.len();
        self.code.extend([0x61, 0, 0, JUMPI]);
        self.statement(depth);
        if self.random.random_bool(0.2) {
            self.end();
        }
        let target = u16::try_from(self.code.len()).unwrap().to_be_bytes();
        self.code[at + 1..at + 3].copy_from_slice(&target);
        self.op(JUMPDEST);
    }

    fn end(&mut self) {
        match self.random.random_range(0..12) {
            0..=4 => self.op(0x00),
            5..=7 => {
                self.small(100);
                self.offset();
                self.op(RETURN);
            }
            8 | 9 => {
                self.small(100);
                self.offset();
                self.op(REVERT);
            }
            10 => self.op(INVALID),
            _ => {
                self.address();
                self.op(SELFDESTRUCT);
            }
        }
    }
}
