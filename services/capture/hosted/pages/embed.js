// Puts a hosted form where this script stands, as high as it is, and tells it which page and visitor it is for.
(function (w, d) {
  'use strict';
  var tag = d.currentScript, id = '{{form_id}}', base = tag.src.replace(/\.js(\?.*)?$/, ''), frame = d.createElement('iframe');
  var origin = base.split('/').slice(0, 3).join('/'), place = tag.dataset.target && d.querySelector(tag.dataset.target);
  function named(name, value) { return value ? '&' + name + '=' + encodeURIComponent(value.slice(0, 2e3)) : ''; }
  frame.src = base + '?embed=1' + named('url', location.href) + named('referrer', d.referrer) + named('lang', tag.dataset.lang || '');
  frame.title = tag.dataset.title || '{{title}}';
  frame.style.cssText = 'display:block;width:100%;height:30rem;border:0';
  w.addEventListener('message', function (e) {
    var said = e.data;
    if (e.source !== frame.contentWindow || e.origin !== origin || !said || said.throughline !== id) return;
    if (said.height > 0) frame.style.height = Math.min(said.height, 2e4) + 'px';
    if (said.ready && w.throughline) {
      w.throughline('id', function (visitor, session) {
        frame.contentWindow.postMessage({ throughline: id, visitor: visitor, session: session }, origin);
      });
    }
    if (/^https?:/.test(said.redirect)) location.href = said.redirect;
  });
  if (place) place.appendChild(frame); else tag.parentNode.insertBefore(frame, tag.nextSibling);
})(window, document);
