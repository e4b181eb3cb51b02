// CIDs of content around the limits of blocks and nodes, by the importer of Helia, which shares no code with the store:
// `node cids.mjs > cids.json`. Byte n of each content is n modulo 251.
import { MemoryBlockstore } from 'blockstore-core'
import { importer } from 'ipfs-unixfs-importer'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'

const MIB = 1 << 20

async function cidOf ({ chunk_bytes: chunkSize, max_links: maxChildrenPerNode, bytes }) {
  const content = Uint8Array.from({ length: bytes }, (_, n) => n % 251)
  const options = {
    profile: 'unixfs-v1-2025',
    // The profile's own sizes stand where it brings them.
    ...(chunkSize !== MIB && { chunker: fixedSize({ chunkSize }), layout: balanced({ maxChildrenPerNode }) })
  }
  let root
  for await (const entry of importer([{ content }], new MemoryBlockstore(), options)) root = entry
  return root.cid.toString()
}

const cases = [
  ...[0, 1, MIB - 1, MIB, MIB + 1, 2 * MIB, 3 * MIB + 12345].map((bytes) => [MIB, 1024, bytes]),
  // As many chunks as a node has links, and one more; then three levels.
  ...[16 * 1024, 16 * 1024 + 1, 16 * 1024 * 2 + 17].map((bytes) => [16, 1024, bytes]),
  ...[3, 4, 5, 12, 13, 36, 37, 108, 109, 1000].map((bytes) => [4, 3, bytes])
].map(([chunk_bytes, max_links, bytes]) => ({ chunk_bytes, max_links, bytes }))
for (const one of cases) one.cid = await cidOf(one)
console.log('[\n' + cases.map((one) => '  ' + JSON.stringify(one)).join(',\n') + '\n]')
