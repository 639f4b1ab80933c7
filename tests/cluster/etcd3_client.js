// Exercises npm's `etcd3` at the endpoint given: prints the name of each check that passed; exit code 1 if one fails.
'use strict';
const assert = require('node:assert/strict');
const { once } = require('node:events');
const { Etcd3, EtcdLockFailedError } = require('etcd3');

const hosts = process.argv[2];
const client = new Etcd3({ hosts });
const store = client.namespace(`node-${process.pid}/`);

async function eventually(condition) {
  for (let looks = 0; looks < 1000; looks += 1) {
    if (await condition()) return;
    await new Promise(resolve => setTimeout(resolve, 20));
  }
  assert.fail('it never happened');
}

const checks = {
  async kv() {
    await store.put('a').value('1');
    await store.put('b').value(2);
    assert.equal(await store.get('a').string(), '1');
    assert.equal(await store.get('b').number(), 2);
    assert.equal(await store.get('nothing').string(), null);
    assert.equal(await store.get('a').exists(), true);
    assert.deepEqual(await store.getAll().strings(), { a: '1', b: '2' });
    assert.deepEqual(await store.getAll().sort('Key', 'Descend').limit(1).keys(), ['b']);
    assert.equal(await store.getAll().prefix('a').count(), 1);
    const before = (await store.get('a').exec()).kvs[0].mod_revision;
    const previous = await store.put('a').value('3').getPrevious();
    assert.equal(previous.value.toString(), '1');
    assert.equal(await store.get('a').revision(before).string(), '1');
    const deleted = await store.delete().all().getPrevious();
    assert.deepEqual(deleted.map(pair => pair.value.toString()), ['3', '2']);
    assert.deepEqual(await store.getAll().keys(), []);
  },

  async transaction() {
    const create = () => store.if('t', 'Create', '==', 0)
      .then(store.put('t').value('made'))
      .else(store.get('t'))
      .commit();
    assert.equal((await create()).succeeded, true);
    const second = await create();
    assert.equal(second.succeeded, false);
    assert.equal(second.responses[0].response_range.kvs[0].value.toString(), 'made');
    await store.put('n').value(0);
    const add = () => store.stm({ retries: 50 }).transact(async txn => {
      await txn.put('n').value((await txn.get('n').number()) + 1);
    });
    await Promise.all([add(), add(), add(), add()]);
    assert.equal(await store.get('n').number(), 4);
  },

  async watch() {
    const start = Number((await store.put('w/0').value('old')).header.revision);
    const seen = [];
    const live = await store.watch().prefix('w/').withPreviousKV().create();
    const past = await store.watch().prefix('w/').startRevision(String(start)).create();
    const deletions = await store.watch().prefix('w/').ignore('delete').create();
    const history = [];
    const filtered = [];
    live.on('put', (pair, before) => seen.push(['put', String(pair.key), String(pair.value), before && String(before.value)]));
    live.on('delete', (pair, before) => seen.push(['delete', String(pair.key), '', before && String(before.value)]));
    past.on('put', pair => history.push(String(pair.value)));
    deletions.on('put', () => filtered.push('put'));
    deletions.on('delete', () => filtered.push('delete'));
    await store.put('w/1').value('1');
    await store.put('w/1').value('2');
    await store.delete().key('w/1');
    await eventually(() => seen.length === 3 && history.length === 3);
    assert.deepEqual(seen.map(([kind, key, value]) => [kind, key, value]),
      [['put', 'w/1', '1'], ['put', 'w/1', '2'], ['delete', 'w/1', '']]);
    assert.equal(seen[1][3], '1');
    assert.equal(seen[2][3], '2');
    assert.deepEqual(history, ['old', '1', '2']);
    await eventually(() => filtered.length > 0);
    assert.equal(new Set(filtered).size, 1);
    await Promise.all([live.cancel(), past.cancel(), deletions.cancel()]);
    await store.put('w/1').value('unseen');
    assert.equal(seen.length, 3);
  },

  async lease() {
    const lease = store.lease(60, { autoKeepAlive: false });
    await lease.put('leased').value('1');
    const kept = await lease.keepaliveOnce();
    assert.equal(Number(kept.TTL), 60);
    const told = await client.leaseClient.leaseTimeToLive({ ID: await lease.grant(), keys: true });
    assert.deepEqual(told.keys.map(String), [`node-${process.pid}/leased`]);
    await lease.revoke();
    assert.equal(await store.get('leased').string(), null);

    const kept2 = store.lease(2);
    await kept2.put('kept').value('1');
    await once(kept2, 'keepaliveSucceeded');
    assert.equal(await store.get('kept').string(), '1');
    const lost = once(kept2, 'lost');
    await client.leaseClient.leaseRevoke({ ID: await kept2.grant() });
    await lost;

    const short = store.lease(2, { autoKeepAlive: false });
    await short.put('short').value('1');
    await eventually(async () => (await store.get('short').string()) === null);
  },

  async lock() {
    const first = store.lock('l').ttl(10);
    await first.acquire();
    await assert.rejects(store.lock('l').ttl(10).acquire(), EtcdLockFailedError);
    await first.release();
    assert.equal(await store.lock('l').ttl(10).do(() => 'inside'), 'inside');
  },

  async election() {
    const election = store.election('e', 10);
    assert.equal(await election.leader(), undefined);
    const first = election.campaign('first');
    await first.wait();
    const observer = await election.observe();
    assert.equal(observer.leader(), 'first');
    const second = election.campaign('second');
    const elected = second.wait();
    await first.proclaim('renamed');
    await eventually(() => observer.leader() === 'renamed');
    await first.resign();
    await elected;
    await eventually(() => observer.leader() === 'second');
    assert.equal(await election.leader(), 'second');
    await observer.cancel();
    await second.resign();
  },
};

(async () => {
  let failed = false;
  for (const [name, check] of Object.entries(checks)) {
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('it hangs')), 40000); });
    try {
      await Promise.race([check(), late]);
      console.log(name);
    } catch (error) {
      failed = true;
      console.error(`${name}: ${error.stack}`);
    }
    clearTimeout(timer);
  }
  await store.delete().all();
  client.close();
  process.exit(failed ? 1 : 0);
})();
