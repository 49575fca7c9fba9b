// A placeholder: the page's second half is to come.
export const mount = () => ({ draw() {}, destroy() {} });
