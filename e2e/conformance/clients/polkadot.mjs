// npm @polkadot/api: what dashboards and scripts in TypeScript do.
//
// Word: the folder with node_modules.

import { createRequire } from 'node:module';
import { join } from 'node:path';

import { equal, facts, operation, rao, runAll, that, until, url } from './operations.mjs';

const require = createRequire(join(process.argv[2], 'package.json'));
const { ApiPromise, HttpProvider, Keyring, WsProvider } = require('@polkadot/api');

const keyring = new Keyring({ type: 'sr25519', ss58Format: 42 });
const pair = (uri) => keyring.addFromUri(uri);
const key = (uri) => pair(uri).address;
const told = (netuid) => facts.subnets.find((subnet) => subnet.netuid === netuid);

let api;

/** Signs and sends; what its events and its fate are once it is in a final block. */
function send(tx, signer, options = {}) {
  return new Promise((resolve, reject) => {
    const seen = [];
    tx.signAndSend(pair(signer), options, ({ status, events, dispatchError }) => {
      seen.push(status.type);
      if (!status.isFinalized) return;
      const names = events.map(({ event }) => `${event.section}.${event.method}`);
      const fee = events.find(({ event }) => event.method === 'TransactionFeePaid')?.event.data.actualFee.toBigInt();
      let error;
      if (dispatchError?.isModule) error = api.registry.findMetaError(dispatchError.asModule).name;
      else if (dispatchError) error = dispatchError.toString();
      resolve({ names, fee, error, seen, block: status.asFinalized.toHex() });
    }).catch(reject);
  });
}

async function done(tx, signer) {
  const outcome = await send(tx, signer);
  that(!outcome.error, `the chain says: ${outcome.error}`);
  return outcome;
}

const free = async (uri) => (await api.query.system.account(key(uri))).data.free.toBigInt();

operation('connect', async () => {
  api = await ApiPromise.create({ provider: new WsProvider(url), noInitWarn: true });
  equal('chain', (await api.rpc.system.chain()).toString(), 'Bittensor');
  equal('token', [api.registry.chainTokens, api.registry.chainDecimals, api.registry.chainSS58], [['TAO'], [9], 42]);
  equal('name', api.runtimeVersion.specName.toString(), 'node-subtensor');
});

operation('connect over HTTP', async () => {
  const http = await ApiPromise.create({ provider: new HttpProvider(url.replace('ws:', 'http:')), noInitWarn: true });
  equal('genesis', http.genesisHash.toHex(), api.genesisHash.toHex());
  equal('tempo', (await http.query.subtensorModule.tempo(1)).toNumber(), told(1).hyperparameters.tempo);
});

operation('balance', async () => {
  equal('//Ferdie', await free('//Ferdie'), 10n ** 15n);
  for (const { account, balance } of facts.accounts) equal(account, await free(account), rao(balance));
  equal('existential deposit', api.consts.balances.existentialDeposit.toNumber(), 500);
});

operation('hyperparameters', async () => {
  const want = told(1).hyperparameters;
  const q = api.query.subtensorModule;
  const got = await Promise.all([q.tempo(1), q.immunityPeriod(1), q.maxAllowedUids(1), q.kappa(1)]);
  equal('values', got.map(Number), [want.tempo, want.immunity_period, want.max_uids, want.kappa]);
  equal('commit reveal', (await q.commitRevealWeightsEnabled.multi([1, 2])).map((value) => value.isTrue), [false, true]);
});

operation('maps and constants', async () => {
  const want = told(1).neurons.map(({ hotkey }, uid) => [key(hotkey), uid]).sort();
  const entries = await api.query.subtensorModule.uids.entries(1);
  equal('uids', entries.map(([{ args }, uid]) => [args[1].toString(), uid.unwrap().toNumber()]).sort(), want);
  const weights = await api.query.subtensorModule.weights(1, 0);
  equal('weights', weights.toJSON(), [[2, 40000], [3, 20000]]);
  const axon = (await api.query.subtensorModule.axons(1, key('//Bob//hot'))).unwrap();
  equal('axon', [axon.ip.toNumber(), axon.port.toNumber(), axon.ipType.toNumber()], [0xcb007107, 8091, 4]);
});

operation('runtime call', async () => {
  const neurons = await api.call.neuronInfoRuntimeApi.getNeuronsLite(1);
  equal('hotkeys', neurons.map(({ hotkey }) => hotkey.toString()), told(1).neurons.map(({ hotkey }) => key(hotkey)));
  equal('missing', (await api.call.subnetInfoRuntimeApi.getMetagraph(77)).isNone, true);
});

operation('metagraph', async () => {
  const graph = (await api.call.subnetInfoRuntimeApi.getMetagraph(1)).unwrap();
  equal('hotkeys', graph.hotkeys.map(String), told(1).neurons.map(({ hotkey }) => key(hotkey)));
  equal('coldkeys', graph.coldkeys.map(String), told(1).neurons.map(({ coldkey }) => key(coldkey)));
  equal('alpha stake', graph.alphaStake.map((value) => value.toBigInt()), told(1).neurons.map(({ stake = '0' }) => rao(stake)));
  equal('permits', graph.validatorPermit.toJSON(), [true, true, false, true]);
  equal('tempo', graph.tempo.toNumber(), told(1).hyperparameters.tempo);
});

operation('subscription to heads', async () => {
  const heads = [];
  await new Promise((resolve, reject) => {
    api.rpc.chain.subscribeNewHeads((head) => {
      heads.push(head.number.toNumber());
      if (heads.length === 3) resolve();
    }).catch(reject);
  });
  equal('heads', heads, [heads[0], heads[0] + 1, heads[0] + 2]);
  const final = await new Promise((resolve, reject) => {
    api.rpc.chain.subscribeFinalizedHeads((head) => resolve(head.number.toNumber())).catch(reject);
  });
  that(final <= (await api.rpc.chain.getHeader()).number.toNumber(), 'finality is ahead');
});

operation('blocks and events', async () => {
  const hash = await api.rpc.chain.getBlockHash(1);
  const { block } = await api.rpc.chain.getBlock(hash);
  equal('number', block.header.number.toNumber(), 1);
  equal('inherent', block.extrinsics.map(({ method }) => `${method.section}.${method.method}`)[0], 'timestamp.set');
  const past = await api.at(hash);
  const events = await past.query.system.events();
  that(events.some(({ event }) => event.method === 'ExtrinsicSuccess'), 'no ExtrinsicSuccess in block 1');
  that(block.header.digest.logs.some((log) => log.isPreRuntime), 'the header names no slot');
});

operation('transfer', async () => {
  let balance = 0n;
  const stop = await api.query.system.account(key('//Xerxes'), ({ data }) => {
    balance = data.free.toBigInt();
  });
  const before = await free('//Ferdie');
  const tx = api.tx.balances.transferKeepAlive(key('//Xerxes'), 1_234_567_890n);
  const { partialFee } = await tx.paymentInfo(key('//Ferdie'));
  const { names, fee, seen } = await done(tx, '//Ferdie');
  that(names.includes('balances.Transfer'), `no Transfer among ${names}`);
  that(seen.includes('InBlock'), `the states were ${seen}`);
  equal('sent', before - (await free('//Ferdie')), 1_234_567_890n + fee);
  equal('fee', fee, partialFee.toBigInt());
  await until('the subscription to the balance', () => balance === 1_234_567_890n, 5000);
  stop();
});

operation('serve axon', async () => {
  const tx = api.tx.subtensorModule.serveAxon(1, 1, 0xc6336409, 8123, 4, 4, 0, 0);
  const { names } = await done(tx, '//Charlie//hot');
  that(names.includes('subtensorModule.AxonServed'), `no AxonServed among ${names}`);
  const axon = (await api.query.subtensorModule.axons(1, key('//Charlie//hot'))).unwrap();
  equal('axon', [axon.ip.toNumber(), axon.port.toNumber()], [0xc6336409, 8123]);
});

operation('set weights', async () => {
  await done(api.tx.subtensorModule.setWeights(1, [2, 3], [1, 3], 0), '//Bob//hot');
  equal('weights', (await api.query.subtensorModule.weights(1, 1)).toJSON(), [[2, 21845], [3, 65535]]);
});

operation('set weights, commit-reveal by time lock', async () => {
  const sealed = `0x${'ab'.repeat(300)}`;
  const tx = api.tx.subtensorModule.commitTimelockedWeights(2, sealed, 2n ** 40n, 4);
  const { names } = await done(tx, '//Alice//hot');
  that(names.includes('subtensorModule.TimelockedWeightsCommitted'), `no event of it among ${names}`);
  const rows = await api.query.subtensorModule.timelockedWeightCommits.entries(2);
  that(rows.some(([, commits]) => commits.some(([who]) => who.toString() === key('//Alice//hot'))), 'no commit of Alice');
});

operation('register', async () => {
  const price = (await api.query.subtensorModule.burn(1)).toBigInt();
  const before = await free('//Ferdie');
  const { fee } = await done(api.tx.subtensorModule.burnedRegister(1, key('//Ferdie//hot')), '//Ferdie');
  equal('uid', (await api.query.subtensorModule.uids(1, key('//Ferdie//hot'))).unwrap().toNumber(), 4);
  const paid = before - (await free('//Ferdie')) - fee;
  that(paid <= price && paid * 100n >= price * 80n, `paid ${paid} for a price of ${price}`);
});

operation('stake', async () => {
  await done(api.tx.subtensorModule.addStake(key('//Charlie//hot'), 1, rao('10')), '//Charlie');
  const stake = async () => (await api.query.subtensorModule.totalHotkeyAlpha(key('//Charlie//hot'), 1)).toBigInt();
  equal('stake', await stake(), rao('10'));
  await done(api.tx.subtensorModule.removeStake(key('//Charlie//hot'), 1, rao('4')), '//Charlie');
  equal('stake left', await stake(), rao('6'));
});

operation('commitment', async () => {
  const data = Buffer.from('https://models.example/7');
  const info = { fields: [{ [`Raw${data.length}`]: `0x${data.toString('hex')}` }] };
  await done(api.tx.commitments.setCommitment(1, info), '//Bob//hot');
  const got = (await api.query.commitments.commitmentOf(1, key('//Bob//hot'))).unwrap();
  that(got.info.fields[0].toHex().endsWith(data.toString('hex')), `the commitment is ${got}`);
});

operation('proxy', async () => {
  await done(api.tx.proxy.addProxy(key('//Ferdie'), 'Any', 0), '//Eve');
  const [proxies] = await api.query.proxy.proxies(key('//Eve'));
  equal('proxies', proxies.map(({ delegate }) => delegate.toString()), [key('//Ferdie')]);
  const before = await free('//Eve');
  const inner = api.tx.balances.transferKeepAlive(key('//Uma'), rao('1'));
  await done(api.tx.proxy.proxy(key('//Eve'), null, inner), '//Ferdie');
  equal('paid by the real account', [before - (await free('//Eve')), await free('//Uma')], [rao('1'), rao('1')]);
});

operation('batch', async () => {
  const inner = ['//Vic', '//Wil'].map((name) => api.tx.balances.transferKeepAlive(key(name), rao('1')));
  await done(api.tx.utility.batchAll(inner), '//Ferdie');
  equal('both', [await free('//Vic'), await free('//Wil')], [rao('1'), rao('1')]);
});

operation('sudo', async () => {
  await done(api.tx.sudo.sudo(api.tx.adminUtils.sudoSetWeightsSetRateLimit(1, 500)), '//Alice');
  equal('rate limit', (await api.query.subtensorModule.weightsSetRateLimit(1)).toNumber(), 500);
});

operation('errors by name', async () => {
  const stranger = api.tx.subtensorModule.addStake(key('//Stranger'), 1, rao('1'));
  equal('dispatch', (await send(stranger, '//Bob')).error, 'HotKeyAccountNotExists');
  equal('owner', (await send(api.tx.subtensorModule.startCall(1), '//Bob')).error, 'NotSubnetOwner');
  const refused = async (part, tx, signer, options) => {
    const said = await send(tx, signer, options).then(() => 'it succeeded', (error) => error.message);
    that(said.includes(part), `the reason names no "${part}": ${said}`);
  };
  await refused('Custom error: 6', api.tx.subtensorModule.setWeights(1, [2], [1], 0), '//Bob//hot');
  await refused('outdated', stranger, '//Ferdie', { nonce: 0 });
});

await runAll();
