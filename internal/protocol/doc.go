// Package protocol turns core's model into what crosses the socket of a plugin, and back
// (varlink/io.unmoor.Plugin.varlink).
//
// From functions make the wire's types of the model's, To functions the model's of the wire's. Both
// are strict: an ID that is none, a word that does not exist, a required field that is missing or a
// text that JSON would change is an error, and nothing is made of it. So what was read with To and
// is written with From comes out as it went in, and the other way round.
package protocol
