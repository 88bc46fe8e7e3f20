"""The reference portal: enrolment and login in a browser, for people and their helpdesk.

It imports nothing of ours but `otpbridge.client`: what it can do, any portal can.
"""
