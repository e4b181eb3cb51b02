// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

/// A session, counted from 1.
type SessionId is uint64;

/// A node, counted from 1; 0 means "no node named".
type NodeId is uint32;

/// An allotment of a session: lane 0 belongs to the session's owner.
type Lane is uint32;

/// keccak256 of the bytes of a model manifest.
type ModelId is bytes32;

/// A model's number in the registry, counted from 1: the short form that contracts store.
type ModelIndex is uint32;

/// keccak256(abi.encode(queue, sessionId, lane, nonce)).
type TaskId is bytes32;

/// Backend and data type, e.g. "cpu-f32": ASCII, left-aligned.
type NumericClass is bytes32;

/// A token that sessions may be paid in, by its place in `SessionPayment`'s list; 0 is COR.
type AssetId is uint8;
