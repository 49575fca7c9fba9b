// A placeholder: the page's second half is to come.
const none = () => {}; export const mount = () => ({ draw: none, act: none, toast: none, undo: none, letGo: none, actOnAll: none });
