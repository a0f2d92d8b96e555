// Throughline's tracking snippet. It speaks to the origin it was loaded from, sets no cookie, and until there is consent
// it stores nothing and sends nothing: what happens meanwhile waits in this page's memory.
(function (w, d) {
  'use strict';
  var tag = d.currentScript, site = tag && tag.getAttribute('data-site');
  if (!site || (w.throughline && w.throughline.on)) return;

  var KEY = 'throughline', VISITOR = KEY + '.v', QUEUE = KEY + '.q.', MOST = 100, BATCH = 20, LARGEST = 6e4;
  var SILENCE = 18e5, LIFE = 395 * 864e5, ORPHAN = 5e3, SOON = 1e3, LATEST = 3e5;
  var collector = tag.src.replace(/t\.js(\?.*)?$/, 't/' + site);
  var implied = tag.getAttribute('data-consent') === 'implied', hashes = tag.hasAttribute('data-hash');
  var tab = QUEUE + random(), memory = null, unkept = null, allowed, waiting = [], queue = [], handed = {};
  var timer = 0, pause = SOON, busy = 0, current = address(), referrer = d.referrer, moment = 0;
  var quiet = navigator.globalPrivacyControl || navigator.doNotTrack === '1' || w.doNotTrack === '1';

  function now() { return moment || Date.now(); }
  function random() {
    return [].map.call(crypto.getRandomValues(new Uint8Array(16)), function (b) { return (b + 256).toString(16).slice(1); }).join('');
  }
  function address() { return hashes ? location.href : location.href.split('#')[0]; }
  function get(key) { try { return localStorage.getItem(key); } catch (e) { return null; } }
  function put(key, value) { try { localStorage.setItem(key, value); return 1; } catch (e) { return 0; } }
  function drop(key) { try { localStorage.removeItem(key); } catch (e) { /* there was none */ } }
  function parsed(text) { try { return JSON.parse(text); } catch (e) { return null; } }
  function queues() {
    try { return Object.keys(localStorage).filter(function (k) { return k.indexOf(QUEUE) === 0; }); } catch (e) { return []; }
  }

  // What was said of consent: when it was given, or a bare no. It has a key of its own, which only somebody's word changes,
  // so that a tab that has not heard of a denial yet cannot write over it, and each looks again before it does anything.
  function say(word) {
    if (!word) drop(KEY);
    unkept = word && !put(KEY, word) ? word : null;
  }
  function granted() {
    var word = get(KEY) || unkept;
    return word !== '0' && (+word > now() - LIFE || (implied && !quiet));
  }
  function open() {
    if (allowed && !granted()) forget();
    return allowed;
  }

  // Who this browser is, read anew each time: other tabs are the same visitor in the same session.
  function visitor() {
    var kept = parsed(get(VISITOR)) || memory;
    return kept && kept.id && now() - kept.since < LIFE ? kept : null;
  }
  function session() {
    var v = visitor() || { id: random(), since: now(), n: 0, last: 0 };
    if (now() - v.last > SILENCE) {
      v.n++;
      v.url = current.slice(0, 2e3);
      v.ref = referrer.slice(0, 2e3);
      v.last = now();
      add(v, 'session_started', {}, v.id + '.' + v.n);
    }
    v.last = now();
    memory = put(VISITOR, JSON.stringify(v)) ? null : v;
    return v;
  }
  function add(v, type, properties, id) {
    queue.push({
      id: id || random(), anonymous_id: v.id, type: type, at: now(), url: current.slice(0, 2e3),
      referrer: referrer.slice(0, 2e3), title: d.title.slice(0, 300), properties: properties || {},
      session: { number: v.n, url: v.url, referrer: v.ref }
    });
    queue = queue.slice(-MOST);
  }

  function keep() {
    if (queue.length) put(tab, JSON.stringify({ at: now(), events: queue })); else drop(tab);
  }
  function record(type, properties) {
    if (open() === false) return;
    if (!allowed) { if (waiting.length < MOST) waiting.push([record, type, properties, current, referrer, now()]); return; }
    add(session(), type, properties);
    keep();
    later(queue.length % BATCH ? pause : 0);
  }
  function later(ms) { if (!timer || !ms) { clearTimeout(timer); timer = setTimeout(send, ms); } }
  function body(batch) {
    var text;
    do { text = JSON.stringify({ sent_at: now(), events: batch }); } while (text.length > LARGEST && batch.length > 1 && (batch.length >>= 1));
    return text;
  }
  function send() {
    timer = 0;
    if (busy || !open() || !queue.length) return;
    var batch = queue.slice(0, BATCH), text = body(batch);
    busy = 1;
    fetch(collector, { method: 'POST', body: text, keepalive: true, credentials: 'omit' }).then(function (answer) {
      if (answer.status === 429 || answer.status > 499) throw answer;
      queue = queue.filter(function (e) { return batch.indexOf(e) < 0; });
      pause = SOON;
    }).catch(function () { pause = Math.min(pause * 2, LATEST); }).then(function () {
      busy = 0;
      if (open()) keep();
      if (queue.length) later(pause);
    });
  }
  // The page may end now. Nobody tells whether a beacon arrived, so what it carried is kept until it was answered once.
  function hand() {
    if (!open()) return;
    var rest = queue.filter(function (e) { return !handed[e.id]; }), batch, text;
    while (rest.length && navigator.sendBeacon) {
      batch = rest.slice(0, BATCH);
      text = body(batch);
      if (!navigator.sendBeacon(collector, text)) return;
      batch.forEach(function (e) { handed[e.id] = 1; });
      rest = rest.slice(batch.length);
    }
  }
  // What pages that are gone could not send.
  function adopt() {
    if (!open()) return;
    queues().forEach(function (key) {
      var left = key !== tab && parsed(get(key));
      if (!left || !left.events || now() - left.at < ORPHAN) return;
      drop(key);
      queue = left.events.concat(queue).slice(-MOST);
    });
    if (queue.length) { keep(); later(0); }
  }

  function grant() {
    var held = waiting, here = current, from = referrer;
    allowed = true;
    waiting = [];
    held.forEach(function (call) {
      if (call[3]) { current = call[3]; referrer = call[4]; moment = call[5]; }
      call[0](call[1], call[2]);
      moment = 0;
    });
    current = here;
    referrer = from;
    if (!visitor()) session();
    adopt();
  }
  function forget() {
    allowed = false;
    waiting = [];
    queue = [];
    memory = null;
    clearTimeout(timer);
    timer = 0;
    drop(VISITOR);
    queues().forEach(drop);
  }

  function look() {
    var there = address();
    if (there === current) return;
    referrer = current;
    current = there;
    record('page_view');
  }
  function soon() { setTimeout(look, 0); }
  ['pushState', 'replaceState'].forEach(function (name) {
    var native = history[name];
    history[name] = function () {
      var result = native.apply(this, arguments);
      soon();
      return result;
    };
  });

  var commands = {
    page: function (properties) { record('page_view', properties); },
    track: function (type, properties) { record(type, properties); },
    identify: function (person) { record('identify', person); },
    consent: function (word) {
      if (word === 'granted') { say(String(Date.now())); grant(); }
      // Where silence is consent a refusal has to be remembered, as a bare no.
      else if (word === 'denied') { say(implied && '0'); forget(); }
    },
    id: function (tell) {
      if (open()) { var v = session(); keep(); tell(v.id, { url: v.url, referrer: v.ref }); } else if (allowed !== false) waiting.push([commands.id, tell]);
    }
  };
  function call(args) {
    var name = args[0];
    try { if (commands.hasOwnProperty(name)) commands[name].apply(null, [].slice.call(args, 1)); } catch (e) { /* never the page's trouble */ }
  }

  function begin() {
    var asked = (w.throughline && w.throughline.q) || [];
    w.throughline = function () { call(arguments); };
    w.throughline.on = 1;
    if (granted()) allowed = true;
    else {
      forget();
      if (get(KEY) !== '0') drop(KEY);
      if (!implied) allowed = undefined;
    }
    if (!tag.hasAttribute('data-manual')) record('page_view');
    [].forEach.call(asked, call);
    w.addEventListener('popstate', soon);
    w.addEventListener('hashchange', soon);
    w.addEventListener('online', adopt);
    w.addEventListener('online', function () { pause = SOON; later(0); });
    w.addEventListener('pagehide', hand);
    d.addEventListener('visibilitychange', function () {
      if (d.visibilityState === 'hidden') hand(); else if (queue.length) later(SOON);
    });
    w.addEventListener('storage', function (e) {
      if (e.key === KEY && !open() && granted()) grant();
    });
    adopt();
    setTimeout(adopt, ORPHAN + SOON);
  }
  if (d.prerendering) d.addEventListener('prerenderingchange', begin, { once: true }); else begin();
})(window, document);
