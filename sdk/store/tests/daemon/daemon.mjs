// A real IPFS daemon (js-ipfs) for the tests of the content store: `node daemon.mjs REPO [PORT]` serves the Kubo RPC on
// 127.0.0.1, on a free port unless one is named, prints its address as one line, and ends when its standard input does.
// It has no peers: nothing leaves this machine, and a block that it lacks is searched for until the call ends.

// Its dependencies need a newer Node.js than 20 in this one thing.
Promise.withResolvers ??= function () {
  const resolvers = {}
  resolvers.promise = new this((resolve, reject) => Object.assign(resolvers, { resolve, reject }))
  return resolvers
}

const { create } = await import('ipfs-core')
const { HttpApi } = await import('ipfs-http-server')

const [repo, port = 0] = process.argv.slice(2)
const ipfs = await create({
  repo,
  silent: true,
  config: {
    Addresses: { Swarm: [], API: `/ip4/127.0.0.1/tcp/${port}`, Gateway: '' },
    Bootstrap: [],
    Discovery: { MDNS: { Enabled: false }, webRTCStar: { Enabled: false } }
  }
})
// The settings of a repository that is there already win over those above.
await ipfs.config.set('Addresses.API', `/ip4/127.0.0.1/tcp/${port}`)
const api = new HttpApi(ipfs)
await api.start()

process.stdin.resume()
process.stdin.once('end', async () => {
  await api.stop()
  await ipfs.stop()
  process.exit(0)
})
console.log(`http://127.0.0.1:${api.apiAddr.toOptions().port}`)
