// SPDX-License-Identifier: MIT OR Apache-2.0
pragma solidity ^0.8.28;

import {IModelRegistry} from "../interfaces/IModelRegistry.sol";
import {INodePool} from "../interfaces/INodePool.sol";
import {Audit} from "../interfaces/IProofOfInference.sol";
import {NodeId, NumericClass} from "../types/Ids.sol";
import {NodeSet} from "./NodeSet.sol";

/// Draws validators out of a model's pool, as it stood when the answer was committed.
library Jury {
    using NodeSet for uint256;

    /// Tries for each validator: bounds the gas of a draw in a pool full of others.
    uint256 internal constant MAX_TRIES = 32;

    struct Contracts {
        INodePool pool;
        IModelRegistry models;
    }

    /// The next validator, of an owner that is not on the task, was not drawn for it and is not among `others`, and of a
    /// class that was calibrated with the miner's (or of the same one) before the answer was committed. 0 if there is none
    /// in so many tries.
    function draw(Audit memory audit, Contracts memory contracts, uint256 others, bool sameClass)
        internal
        view
        returns (NodeId)
    {
        uint256 last = audit.tries + MAX_TRIES;
        if (audit.slots == 0) return NodeId.wrap(0);
        (, NumericClass minerClass) = contracts.pool.ownerOf(audit.nodeId);
        while (audit.tries < last) {
            (NodeId found, address owner, NumericClass class_) = _candidate(audit, contracts.pool);
            if (NodeId.unwrap(found) == 0) continue;
            bool same = NumericClass.unwrap(class_) == NumericClass.unwrap(minerClass);
            if (sameClass && !same) continue;
            if (_owns(owner, audit.nodes, contracts.pool) || _owns(owner, audit.drawn, contracts.pool)) continue;
            if (_owns(owner, others, contracts.pool)) continue;
            if (contracts.models.calibrationBefore(audit.model, minerClass, class_, audit.committedAt) == 0) continue;
            return found;
        }
        return NodeId.wrap(0);
    }

    function _candidate(Audit memory audit, INodePool pool)
        private
        view
        returns (NodeId, address owner, NumericClass class_)
    {
        bytes32 hash = keccak256(abi.encode(audit.seed, audit.taskId, audit.nodeId, audit.tries++));
        return pool.candidateAt(audit.model, uint32(uint256(hash) % audit.slots), audit.committedAt);
    }

    function _owns(address owner, uint256 nodes, INodePool pool) private view returns (bool) {
        for (; nodes != 0; nodes >>= 32) {
            (address other,) = pool.ownerOf(nodes.nodeAt(0));
            if (other == owner) return true;
        }
        return false;
    }
}
