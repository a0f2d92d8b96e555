// On a hosted form: does the proof of work, tells the page around it how high it is, and hears who the visitor is there.
(function () {
  'use strict';
  var form = document.querySelector('form'), body = document.body, id = body.dataset.form, framed = window.parent !== window;
  function tell(what) {
    if (!framed) return;
    what.throughline = id;
    parent.postMessage(what, '*');
  }
  function height() { tell({ height: Math.ceil(document.documentElement.getBoundingClientRect().height) }); }
  if (framed) {
    if (window.ResizeObserver) new ResizeObserver(height).observe(body);
    height();
    if (body.dataset.redirect) tell({ redirect: body.dataset.redirect });
  }
  if (!form) return;

  function field(name) { return form.elements[name]; }
  window.addEventListener('message', function (e) {
    var said = e.data;
    if (e.source !== parent || !framed || !said || said.throughline !== id) return;
    var session = said.session || {};
    field('_visitor').value = String(said.visitor || '');
    field('_session_url').value = String(session.url || '');
    field('_session_referrer').value = String(session.referrer || '');
  });
  tell({ ready: true });

  var bits = +form.dataset.work, token = field('_token').value, working, sent = false;
  function zeros(hash) {
    var left = bits, n = 0;
    while (left >= 8) { if (hash[n++]) return false; left -= 8; }
    return !left || hash[n] >> (8 - left) === 0;
  }
  function work(from) {
    var encoder = new TextEncoder(), jobs = [];
    for (var n = from; n < from + 128; n++) jobs.push(crypto.subtle.digest('SHA-256', encoder.encode(token + ':' + n)));
    return Promise.all(jobs).then(function (hashes) {
      for (var i = 0; i < hashes.length; i++) if (zeros(new Uint8Array(hashes[i]))) return from + i;
      return work(from + 128);
    });
  }
  function begin() {
    if (!working) working = (window.crypto && crypto.subtle ? work(0) : Promise.resolve('')).catch(function () { return ''; });
    return working;
  }
  form.addEventListener('focusin', begin, { once: true });
  form.addEventListener('submit', function (e) {
    e.preventDefault();
    if (sent) return;
    sent = true;
    form.querySelector('button').setAttribute('aria-busy', 'true');
    begin().then(function (answer) {
      field('_proof').value = answer;
      HTMLFormElement.prototype.submit.call(form);
    });
  });
  window.addEventListener('pageshow', function () {
    sent = false;
    form.querySelector('button').removeAttribute('aria-busy');
  });
})();
