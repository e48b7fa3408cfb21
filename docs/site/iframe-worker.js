/* Search in pages that no server sends: browsers start no Worker from file://, so that its script runs in a hidden
   frame instead. The theme knows a worker of this kind by the name IFrameWorker. */
class IFrameWorker extends EventTarget {
  constructor(url) {
    super()
    this.frame = document.createElement("iframe")
    this.frame.hidden = true
    document.body.append(this.frame)
    const inner = this.frame.contentWindow
    inner.postMessage = (data) => this.receive(data)
    inner.importScripts = (...urls) =>
      urls.reduce((before, each) => before.then(() => this.load(each)), Promise.resolve())
    this.ready = this.load(url)
  }

  load(url) {
    const script = this.frame.contentDocument.createElement("script")
    script.src = new URL(url, document.baseURI)
    this.frame.contentDocument.body.append(script)
    return new Promise((resolve, reject) => Object.assign(script, { onload: resolve, onerror: reject }))
  }

  receive(data) {
    const event = new MessageEvent("message", { data })
    this.dispatchEvent(event)
    this.onmessage?.(event)
  }

  postMessage(data) {
    const inner = this.frame.contentWindow
    this.ready.then(() => inner.dispatchEvent(new inner.MessageEvent("message", { data })))
  }

  terminate() {
    this.frame.remove()
  }
}

if (location.protocol === "file:") {
  window.IFrameWorker = IFrameWorker
  window.Worker = IFrameWorker
}
