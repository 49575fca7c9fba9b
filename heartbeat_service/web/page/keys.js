// A placeholder: the page's second half is to come.
export const attach = () => {};
export const help = () => {};
